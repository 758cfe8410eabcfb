// What the command tells the shell: sentences on stderr, and exit codes.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_REPORT_H_
#define ATTEND_CLIENT_CLI_COMMANDS_REPORT_H_

#include "absl/status/status.h"
#include "client/cli/connection/connection_flags.h"

namespace attend::client {

enum ExitCode : int {
  kExitOk = 0,
  kExitDiffers = 1,  // attend-verify found an error above its bound.
  kExitUsage = 2,    // A flag, a file or a tensor given by the user is wrong; nothing was computed.
  kExitServer = 3,   // The server refused, sent something else than was asked for, or is not SERVING.
  kExitNetwork = 4,  // No server answered, or the deadline passed.
  kExitLocal = 5,    // This machine failed: a result could not be written, or memory ran out.
};

// Each prints `status` on stderr and returns the exit code. REQUIRES: !status.ok().

// An error in what the user gave.
ExitCode ReportUsage(const absl::Status& status);

// An error of connecting: kExitNetwork when a name cannot be resolved, else as ReportUsage.
ExitCode ReportConnect(const absl::Status& status);

// An error of handling a response: kExitServer (INTERNAL) when it is not what was asked for, kExitLocal (UNKNOWN) when
// a result cannot be written, else as ReportUsage.
ExitCode ReportResult(const absl::Status& status);

// What the error of a call makes of the exit code, without a word: kExitNetwork when no server answered or the deadline
// passed, else kExitServer. An error without the details of an attend server is an answer too: of an older one, or of a
// proxy before it.
ExitCode CodeOfCall(const absl::Status& status);

// The same for a call made with `flags`. Prints the server's reason, the offending fields and when to try again;
// without a response, what is in the way (client/cli/connection/connection_diagnosis.h).
ExitCode ReportCall(const absl::Status& status, const ConnectionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_REPORT_H_
