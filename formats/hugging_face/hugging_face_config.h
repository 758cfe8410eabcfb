// What a Hugging Face config.json says about one attention layer.
//
// A file is read only for the model types of model_rules.cc. Every key that may be about attention is applied, is known
// to change nothing (kInert), or refuses the layer by name; so does a type that is not known, unless the caller sets
// what its code might imply.
#ifndef ATTEND_FORMATS_HUGGING_FACE_HUGGING_FACE_CONFIG_H_
#define ATTEND_FORMATS_HUGGING_FACE_HUGGING_FACE_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// The most that a config.json may have.
inline constexpr std::size_t kMaxHuggingFaceConfigBytes = std::size_t{1} << 20;

// Refuses a model type whose attention cannot be computed. Pure. Errors: INVALID_ARGUMENT with the reason.
absl::Status CheckModelType(const ModelConfig& config);

// Sets the numbers of heads of the layer at `prefix`, as far as the file knows them. Pure. Errors: INVALID_ARGUMENT
// naming the key; for a type that is not known, what `caller` has to set so that the file need not be asked.
absl::Status ReadModelHeads(ModelConfig& config, std::string_view prefix, const CallerSettings& caller,
                            LayerSettings& layer);

// Sets everything else, for a layer whose query heads have `head_dim` elements (0: not known) and `num_heads` heads.
// The first number in `prefix` counts the model's layers (`model.layers.3.self_attn.`). What `caller` sets is not asked
// of the file, so that a model whose rotary embedding is none of those known can be used by setting it.
//
// Pure. Errors: INVALID_ARGUMENT naming the key, for what cannot be computed, is not understood, or differs between
// layers when the prefix does not say which one it is.
absl::Status ReadModelConfig(ModelConfig& config, std::string_view prefix, std::int64_t head_dim,
                             std::int64_t num_heads, const CallerSettings& caller, LayerSettings& layer);

// All of the above for a text. Errors: theirs, and those of ModelConfig::Parse.
absl::StatusOr<LayerSettings> ParseHuggingFaceConfig(std::string_view json, std::string_view prefix,
                                                     const CallerSettings& caller = {}, std::int64_t head_dim = 0);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_HUGGING_FACE_CONFIG_H_
