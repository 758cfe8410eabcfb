// What a Hugging Face `config.json` says about one attention layer.
//
// Read are: num_attention_heads / n_head / n_heads / num_heads, num_key_value_heads / num_kv_heads / multi_query,
// head_dim / d_kv, rope_theta, rope_scaling and rope_parameters (default, linear, llama3), partial_rotary_factor /
// rotary_pct / rotary_dim, sliding_window with use_sliding_window, layer_types, max_window_layers,
// sliding_window_pattern and the patterns of Gemma 2, GPT-Neo and ModernBERT, attn_logit_softcapping,
// query_pre_attn_scalar, attention_multiplier, the epsilons of norms, alibi, and model_type for what the model's code
// implies: causality, the form of rotary embeddings, norms that add one, the scale of T5.
#ifndef ATTEND_SERVER_LAYERS_HUGGING_FACE_CONFIG_H_
#define ATTEND_SERVER_LAYERS_HUGGING_FACE_CONFIG_H_

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"

namespace attend::server {

// The most that a config.json may have.
inline constexpr std::size_t kMaxHuggingFaceConfigBytes = std::size_t{1} << 20;

// The configuration of the layer at `prefix`, in which the first number counts the model's layers
// (`model.layers.3.self_attn.`), as far as the file knows it. What `caller` sets is not asked of the file, so that a
// model whose rotary embeddings are none of those known (yarn, ...) can be used by setting them.
//
// Pure. Errors: INVALID_ARGUMENT naming the key, for text that is not a JSON object, a value that is none, and what
// cannot be computed: an unknown scaling of rotary embeddings, relative position embeddings, a window that differs
// between layers when the prefix does not say which one it is.
absl::StatusOr<v1::LayerConfig> ParseHuggingFaceConfig(std::string_view json, std::string_view prefix,
                                                       const v1::LayerConfig& caller);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_HUGGING_FACE_CONFIG_H_
