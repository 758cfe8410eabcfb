// Rotary embeddings as a config.json describes them.
#ifndef ATTEND_FORMATS_HUGGING_FACE_HUGGING_FACE_ROTARY_H_
#define ATTEND_FORMATS_HUGGING_FACE_HUGGING_FACE_ROTARY_H_

#include <cstdint>

#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// The rotary embedding of a layer of a model that has them, whose heads have `head_dim` elements (0: not known).
// `is_sliding` says whether the layer sees a window only: Gemma 3 and ModernBERT turn such layers with another base.
// Mistakes and what is not known set the status of `config`.
Setting<Rotary> RotaryOf(ModelConfig& config, std::int64_t head_dim, bool is_sliding);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_HUGGING_FACE_ROTARY_H_
