// Loads the layers of the server's own configuration: --layer, --layer-dir, --layer-config.
#ifndef ATTEND_SERVER_CONFIG_CONFIGURED_LAYERS_H_
#define ATTEND_SERVER_CONFIG_CONFIGURED_LAYERS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "core/kernels/instruction_set.h"
#include "server/config/server_config.h"
#include "server/layers/layer.h"

namespace attend::server {

// Every layer that `sources` names, packed and read-only, in ascending order of their names. What configures a layer,
// the first before the next: --layer-config, layer.json, the file's `__metadata__`, `config.json` beside the file, what
// the naming of the weights implies.
//
// A layer that cannot be loaded is an error that names the flag, the layer, the file and the reason; with skip_broken
// it is left out and `on_skipped` is called with that sentence. A flag that is malformed, and two layers of one name,
// are errors in any case. Errors: INVALID_ARGUMENT.
absl::StatusOr<std::vector<std::shared_ptr<const Layer>>> LoadConfiguredLayers(
    const LayerSources& sources, InstructionSet instruction_set,
    absl::FunctionRef<void(const std::string& sentence)> on_skipped);

// A folder of --layer-dir: what one layer is made of, by the names of its files.
//
//   model.safetensors, or any one .safetensors file, or the .safetensors.index.json of a sharded one
//   config.json   optional: the model's, as Hugging Face writes it
//   layer.json    optional: a LayerConfig in JSON; in addition `prefix`, a string
struct LayerDirEntry {
  std::string checkpoint;  // The path of the file.
  std::string prefix;
  v1::LayerConfig config;  // Of layer.json.
};

// Errors, with the path: NOT_FOUND, INVALID_ARGUMENT.
absl::StatusOr<LayerDirEntry> ReadLayerDirEntry(const std::string& path);

// The names of the folders in `path`, in ascending order; those that begin with a dot are left out (Kubernetes keeps
// what it mounts in such). Errors: NOT_FOUND.
absl::StatusOr<std::vector<std::string>> ListLayerDir(const std::string& path);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_CONFIGURED_LAYERS_H_
