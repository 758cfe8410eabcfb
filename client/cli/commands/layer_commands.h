// `attend layers list | get | upload | check | delete`: the layers that a server keeps by name.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_LAYER_COMMANDS_H_
#define ATTEND_CLIENT_CLI_COMMANDS_LAYER_COMMANDS_H_

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "client/cli/commands/exit_code.h"
#include "client/cli/connection/connection_flags.h"

namespace attend::client {

struct LayersFlags {
  std::string name;    // get, upload, delete
  std::string prefix;  // list: of names; upload, check: of the tensors' names in the file
  std::string file;    // The following: upload, and as far as they are about the file check
  std::string init;    // SEED:DIM
  std::string config;  // A file
  std::optional<int> num_heads;
  std::optional<int> num_kv_heads;
  bool replace = false;
  std::string sha256;  // 64 digits, or `auto`
  std::string etag;    // upload, delete
  std::string format;  // `json` or `table`
};

// Declares `layers` and its subcommands; their flags are read into `flags`, which must outlive parsing.
CLI::App* AddLayersCommand(CLI::App* app, LayersFlags* flags);

// Runs the subcommand of `command`, as AddLayersCommand returned it, that was given; reports errors on stderr.
ExitCode RunLayers(const CLI::App& command, const LayersFlags& flags, const ConnectionFlags& common);

// What --config and the numbers of heads say. Errors: INVALID_ARGUMENT, naming the flag; those of reading files.
absl::StatusOr<v1::LayerConfig> BuildLayerConfig(const LayersFlags& flags);

// What an upload with these flags is to become; reads the files that they name. Errors: INVALID_ARGUMENT, naming the
// flag; those of reading files.
absl::StatusOr<v1::CreateLayerHeader> BuildHeader(const LayersFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_LAYER_COMMANDS_H_
