// Says on stderr what went wrong, and chooses the exit code.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_REPORT_H_
#define ATTEND_CLIENT_CLI_COMMANDS_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "client/cli/commands/exit_code.h"
#include "client/cli/connection/connection_flags.h"

namespace attend::client {

// An error in what the user gave. REQUIRES: !status.ok().
ExitCode ReportUsage(const absl::Status& status);

// An error of connecting: kExitNetwork when a name cannot be resolved, else as ReportUsage. REQUIRES: !status.ok().
ExitCode ReportConnect(const absl::Status& status);

// An error of handling an answer: kExitServer (INTERNAL) when the answer is not what was asked for, kExitLocal
// (UNKNOWN) when a result cannot be written, else as ReportUsage. REQUIRES: !status.ok().
ExitCode ReportResult(const absl::Status& status);

// The error of a call made with `flags`: kExitNetwork when no server answered or the deadline passed, else kExitServer.
// Prints the server's reason, the offending fields and when to try again; without an answer, what is in the way there
// (client/cli/connection/connection_diagnosis.h). REQUIRES: !status.ok().
ExitCode ReportCall(const absl::Status& status, const ConnectionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_REPORT_H_
