// A folder of --layer-dir: what one layer is made of, by the names of its files.
//
//   model.safetensors, or any one .safetensors file, or the .safetensors.index.json of a sharded one
//   config.json   optional: the model's, as Hugging Face writes it
//   layer.json    optional: a LayerConfig in JSON; in addition `prefix`, a string
#ifndef ATTEND_SERVER_CONFIG_LAYER_FOLDER_H_
#define ATTEND_SERVER_CONFIG_LAYER_FOLDER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"

namespace attend::server {

struct LayerFolder {
  std::string checkpoint;  // The path of the file.
  std::string prefix;
  v1::LayerConfig config;  // Of layer.json.
};

// Errors, with the path: NOT_FOUND, INVALID_ARGUMENT.
absl::StatusOr<LayerFolder> ReadLayerFolder(const std::string& path);

// The names of the folders in `path`, in ascending order; those that begin with a dot are left out (Kubernetes keeps
// what it mounts in such). Errors: NOT_FOUND.
absl::StatusOr<std::vector<std::string>> ListLayerFolders(const std::string& path);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_LAYER_FOLDER_H_
