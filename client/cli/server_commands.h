// `attend info` and `attend health`: what a server is, and whether it serves.
#ifndef ATTEND_CLIENT_CLI_SERVER_COMMANDS_H_
#define ATTEND_CLIENT_CLI_SERVER_COMMANDS_H_

#include <CLI/App.hpp>
#include <string>

#include "client/cli/common_flags.h"
#include "client/cli/exit_code.h"

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
ExitCode RunInfo(const InfoFlags& flags, const CommonFlags& common);

// kExitOk when the service is SERVING, kExitServer when it is anything else. With `watch`, prints each change until the
// stream ends or the process is interrupted.
ExitCode RunHealth(const HealthFlags& flags, const CommonFlags& common);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_SERVER_COMMANDS_H_
