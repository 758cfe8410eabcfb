// Finds an attention layer in a checkpoint, whatever its library calls the weights (naming_table.h).
#ifndef ATTEND_SERVER_LAYERS_NAMINGS_H_
#define ATTEND_SERVER_LAYERS_NAMINGS_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "formats/checkpoint.h"
#include "server/layers/layer_weights.h"

namespace attend::server {

// The layer whose tensors' names begin with `prefix`: the layer's (`encoder.layer.0.`) or its attention module's
// (`encoder.layer.0.attention.`); a `.` at its end may be left out.
//
// `caller` is the caller's configuration, of which the heads decide how fused weights are cut; `beside` is what a file
// beside the checkpoint says (hugging_face_config.h). LayerWeights.config is what is known without the caller: the
// file's metadata, over `beside`, over what the naming implies.
//
// Matrices are views of the checkpoint where that is possible. Errors: INVALID_ARGUMENT when no naming fits, saying
// what the file has and what was looked for, when several do, and for a tensor that cannot be used.
absl::StatusOr<LayerWeights> FindLayer(const formats::Checkpoint& checkpoint, std::string_view prefix,
                                       const v1::LayerConfig& caller = {}, const v1::LayerConfig& beside = {});

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_NAMINGS_H_
