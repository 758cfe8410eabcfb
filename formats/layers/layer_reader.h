// Finds an attention layer in a checkpoint, whatever its library calls the weights (naming_table.h), and what else is
// known about it: the one reader of servers and clients.
#ifndef ATTEND_FORMATS_LAYERS_LAYER_READER_H_
#define ATTEND_FORMATS_LAYERS_LAYER_READER_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "formats/layers/layer_settings.h"
#include "formats/layers/weight_reader.h"
#include "formats/safetensors/checkpoint.h"

namespace attend::formats {

// A layer as a checkpoint has it.
struct AttentionLayer {
  LinearWeights query;   // [H * E, D]
  LinearWeights key;     // [K * E, D']
  LinearWeights value;   // [K * V, D']
  LinearWeights output;  // [D_out, H * V], or absent.
  NormWeights query_norm;
  NormWeights key_norm;
  // What the checkpoint and its config.json say; the caller's settings go before it and are not in it.
  LayerSettings settings;
  std::string naming;                  // For people: `bert`, `llama`, ...
  std::string module;                  // What comes before the names of its tensors.
  std::vector<std::string> tensors;    // Those that were read, in ascending order.
  std::shared_ptr<const void> memory;  // Keeps alive what the views point to: a mapped file, cut or transposed copies.
};

struct LayerRequest {
  std::string_view
      prefix;  // The layer's (`encoder.layer.0.`) or its attention module's; a `.` at its end may be left out.
  CallerSettings caller;                    // Also what the file's metadata say.
  std::optional<std::string> config_json;   // The text of the model's config.json.
  std::string config_name = "config.json";  // What to call it in errors.
  MayCopy may_copy = CopyAnything;          // Asked before weights are copied.
  // A server has served this layer already, and goes on as it did: a scale that nothing says is the one that was taken
  // then, with a note, and refuses nothing.
  bool is_stored = false;
};

// Every tensor below the attention module is read, is known to change nothing, or refuses the layer. Matrices are views
// of the checkpoint where that is possible.
//
// Errors: INVALID_ARGUMENT when no naming fits, saying what the file has and what was looked for, when several do, for
// a tensor that cannot be used or would be left out, and for what ReadModelConfig refuses; about numbers of heads with
// the field (layer_settings.h); those of `may_copy`.
absl::StatusOr<AttentionLayer> ReadLayer(const Checkpoint& checkpoint, const LayerRequest& request);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_LAYER_READER_H_
