// The flags, declared once: name, variable in ServerConfig, range and help text.
#ifndef ATTEND_SERVER_CONFIG_OPTIONS_H_
#define ATTEND_SERVER_CONFIG_OPTIONS_H_

#include <CLI/CLI.hpp>

#include "server/config/server_config.h"

namespace attend::server {

// Adds every configurable flag to `app`; parsing then writes into `config`, whose present values are the defaults.
// REQUIRES: `config` outlives `app`.
void DeclareOptions(CLI::App& app, ServerConfig& config);

// Checks what no single flag can. Errors: INVALID_ARGUMENT naming the flags.
absl::Status ValidateConfig(const ServerConfig& config);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_OPTIONS_H_
