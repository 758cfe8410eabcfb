// The weights of one attention layer as the core takes them, and what is known about how to use them.
#ifndef ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_
#define ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "core/layer/attend_problem.h"
#include "formats/safetensors/checkpoint.h"

namespace attend::server {

// A checkpoint's layer: projections and norms found, heads and options known as far as the checkpoint says.
struct LayerWeights {
  LinearView query;   // [H * E, D]
  LinearView key;     // [K * E, D']
  LinearView value;   // [K * V, D']
  LinearView output;  // [D_out, H * V], or absent.
  // Of query and key: widened to FLOAT32, whatever the file has.
  NormView query_norm;
  NormView key_norm;
  // What the checkpoint itself (metadata, config.json, the naming) says; the caller's configuration goes before it.
  v1::LayerConfig config;
  std::string naming;                  // For people: `bert`, `llama`, ...
  std::vector<std::string> notes;      // v1::Layer.notes.
  std::shared_ptr<const void> memory;  // Keeps alive what the views point to: a mapped file, cut or transposed copies.
};

// Reads a layer (formats/layers/layer_reader.h). The file's metadata go before `config_json`, the text of the model's
// config.json if there is one, which is called `config_name` in errors, and `caller` before both. Errors:
// INVALID_ARGUMENT, those of ReadLayer.
absl::StatusOr<LayerWeights> FindLayer(const formats::Checkpoint& checkpoint, std::string_view prefix,
                                       const v1::LayerConfig& caller = {},
                                       const std::optional<std::string>& config_json = std::nullopt,
                                       const std::string& config_name = "config.json");

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_
