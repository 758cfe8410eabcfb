// `attend compute` and `attend sdpa`: files in, attention, files out.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_COMPUTE_COMMAND_H_
#define ATTEND_CLIENT_CLI_COMMANDS_COMPUTE_COMMAND_H_

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/commands/exit_code.h"
#include "client/cli/connection/connection_flags.h"
#include "client/cli/requests/attention_flags.h"
#include "client/cli/results/result_flags.h"

namespace attend::client {

struct ComputeFlags {
  std::vector<std::string> inputs;
  std::string context;
  std::string layer;       // A file, or a name.
  std::string layer_name;  // A name.
  std::optional<std::int64_t> position_offset;
  std::optional<int> num_heads;
  std::optional<int> num_kv_heads;
  AttentionFlags attention;
  ResultFlags result;
};

struct SdpaFlags {
  std::string query;
  std::string key;
  std::string value;
  std::vector<std::string> partials;
  AttentionFlags attention;
  ResultFlags result;
};

// Declares a subcommand of `app`; its flags are read into `flags`, which must outlive parsing.
CLI::App* AddComputeCommand(CLI::App* app, ComputeFlags* flags);
CLI::App* AddSdpaCommand(CLI::App* app, SdpaFlags* flags);

// Runs it, reporting errors on stderr. A batch stops at its first error.
ExitCode RunCompute(const ComputeFlags& flags, const ConnectionFlags& common);
ExitCode RunSdpa(const SdpaFlags& flags, const ConnectionFlags& common);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_COMPUTE_COMMAND_H_
