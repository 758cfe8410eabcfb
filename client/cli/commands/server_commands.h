// `attend info` and `attend health`: what a server is, and whether it serves.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_SERVER_COMMANDS_H_
#define ATTEND_CLIENT_CLI_COMMANDS_SERVER_COMMANDS_H_

#include <CLI/App.hpp>
#include <string>

#include "client/cli/commands/exit_code.h"
#include "client/cli/connection/connection_flags.h"

namespace attend::client {

struct InfoFlags {
  std::string format;  // `json` or `table`.
};

struct HealthFlags {
  std::string service;  // Empty: the server as a whole.
  bool watch = false;
  std::string format;
};

// Declares a subcommand of `app`; its flags are read into `flags`, which must outlive parsing.
CLI::App* AddInfoCommand(CLI::App* app, InfoFlags* flags);
CLI::App* AddHealthCommand(CLI::App* app, HealthFlags* flags);

// Runs it, reporting errors on stderr.
ExitCode RunInfo(const InfoFlags& flags, const ConnectionFlags& common);

// kExitOk when the service is SERVING, kExitServer when it is anything else. With `watch`, prints each change until the
// stream ends or the process is interrupted.
ExitCode RunHealth(const HealthFlags& flags, const ConnectionFlags& common);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_SERVER_COMMANDS_H_
