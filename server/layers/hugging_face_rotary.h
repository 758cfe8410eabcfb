// Rotary embeddings as a config.json describes them.
#ifndef ATTEND_SERVER_LAYERS_HUGGING_FACE_ROTARY_H_
#define ATTEND_SERVER_LAYERS_HUGGING_FACE_ROTARY_H_

#include <cstdint>
#include <optional>

#include "attend/v1/layer_service.pb.h"
#include "formats/model_config.h"

namespace attend::server {

// The rotary embedding of a layer whose heads have `head_dim` elements (0: not known), or none when the model has none.
// `is_sliding` says whether the layer sees a window only: Gemma 3 and ModernBERT turn such layers with another base.
// Mistakes and what is not known set the status of `config`.
std::optional<v1::RotaryEmbedding> RotaryOf(formats::ModelConfig& config, std::int64_t head_dim, bool is_sliding);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_HUGGING_FACE_ROTARY_H_
