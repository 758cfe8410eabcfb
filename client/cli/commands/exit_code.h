// What the `attend` command tells the shell.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_EXIT_CODE_H_
#define ATTEND_CLIENT_CLI_COMMANDS_EXIT_CODE_H_

namespace attend::client {

enum ExitCode : int {
  kExitOk = 0,
  kExitDiffers = 1,  // --verify or --expect found an error above its bound.
  kExitUsage = 2,    // A flag, a file or a tensor given by the user is wrong; nothing was computed.
  kExitServer = 3,   // The server answered with an error or not with what it was asked for, or is not SERVING.
  kExitNetwork = 4,  // No server answered, or the deadline passed.
  kExitLocal = 5,    // This machine failed: a result could not be written, or memory ran out.
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_EXIT_CODE_H_
