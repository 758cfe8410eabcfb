// Reads the configuration: `--some-flag` from the command line, ATTEND_SOME_FLAG from the environment, `some-flag =
// ...` from the file that --config names, in this order of precedence, over the defaults in ServerConfig.
//
// An unknown flag and an unknown key in the file are errors. An unknown ATTEND_* variable cannot be one: others own
// names there too (the client's ATTEND_ENDPOINTS; Kubernetes adds ATTEND_SERVICE_HOST and ATTEND_PORT to every pod
// beside a service named `attend`, which is also why no flag is called --port). A variable that is one or two letters
// away from a flag's name is reported as a warning. An empty variable counts as not set.
//
// Repeatable flags take a comma-separated list in a variable and an array in the file.
#ifndef ATTEND_SERVER_CONFIG_FLAGS_H_
#define ATTEND_SERVER_CONFIG_FLAGS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config/server_config.h"

namespace CLI {
class App;
}

namespace attend::server {

struct ParsedFlags {
  ServerConfig config;
  // Set when there is nothing to serve (--help, --version, --print-config): print it and exit with 0.
  std::optional<std::string> output;
  // --check-config: make the checks of a start (ResolveStartSettings), say how they end, and exit.
  bool check_only = false;
  // Sentences for the log.
  std::vector<std::string> warnings;
};

using Environment = std::map<std::string, std::string>;

// The variables of this process that start with ATTEND_.
Environment ReadEnvironment();

// `arguments` without the program's name. Errors: INVALID_ARGUMENT naming the flag, NOT_FOUND for a missing file.
absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments, const Environment& environment);

// The flags, declared once: name, variable in ServerConfig, range and help text.

// Adds every configurable flag to `app`; parsing then writes into `config`, whose present values are the defaults.
// REQUIRES: `config` outlives `app`.
void DeclareOptions(CLI::App& app, ServerConfig& config);

// Checks what no single flag can. Errors: INVALID_ARGUMENT naming the flags.
absl::Status ValidateConfig(const ServerConfig& config);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_FLAGS_H_
