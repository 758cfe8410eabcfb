#include "formats/hugging_face/model_config.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"

namespace attend::formats {
namespace {

// A key that has one of these in its name may be about attention.
constexpr absl::string_view kWords[] = {
    "alibi",    "attention",   "attn",       "bidirection", "bucket",  "causal",   "chunk",       "clip",
    "gate",     "gating",      "global",     "head",        "kv",      "latent",   "layer_types", "local",
    "lora",     "mask",        "multiplier", "norm",        "pattern", "position", "qk",          "query",
    "relative", "rope",        "rotary",     "scal",        "sink",    "slid",     "softcap",     "softmax",
    "sparse",   "temperature", "window",     "is_decoder"};

// The same of a key beside the configurations of a model's parts, which is also about what joins them.
constexpr absl::string_view kOuterWords[] = {"alibi", "attention", "attn",     "bidirection", "causal",
                                             "head",  "mask",      "position", "rope",        "rotary",
                                             "slid",  "softcap",   "window",   "is_decoder"};

// Keys that any model's file may have and that hugging_face_config.cc applies.
constexpr absl::string_view kApplied[] = {"attention_heads",
                                          "d_kv",
                                          "decoder_attention_heads",
                                          "encoder_attention_heads",
                                          "head_dim",
                                          "is_causal",
                                          "n_head",
                                          "n_heads",
                                          "num_attention_heads",
                                          "num_heads",
                                          "use_bidirectional_attention"};
// The same of models with rotary embeddings.
constexpr absl::string_view kRotaryKeys[] = {"max_position_embeddings",
                                             "original_max_position_embeddings",
                                             "partial_rotary_factor",
                                             "rope_parameters",
                                             "rope_scaling",
                                             "rope_theta"};

// Keys that change nothing in an attention layer: what the rest of the model does, biases (the tensors say whether
// there are any), how it is trained, how it is run, and how text is generated with it.
constexpr absl::string_view kInert[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_flash_attn_2_enabled",
    "_remove_final_layer_norm",
    "adapter_attn_dim",
    "adapter_layer_norm",
    "adapter_reuse_layer_norm",
    "add_cross_attention",
    "add_final_layer_norm",
    "add_qkv_bias",
    "aggregation_temperature",
    "apply_layernorm",
    "apply_layernorm_after_vision_backbone",
    "apply_query_key_layer_scaling",
    "apply_residual_connection_post_layernorm",
    "attention_bias",
    "attention_in_multiplier",
    "attention_out_bias",
    "attention_out_multiplier",
    "attention_softmax_in_fp32",
    "attn_drop_rate",
    "attn_implementation",
    "attn_layer_indices",
    "attn_layer_offset",
    "attn_layer_period",
    "block_ffn_dim_multiplier",
    "block_mlp_init_scale",
    "block_out_init_scale",
    "block_sequence_parallel_norm_across_tp",
    "chunk_size",
    "chunk_size_feed_forward",
    "contrastive_logits_temperature",
    "conv_pos_batch_norm",
    "cross_attention_frequency",
    "cross_attention_hidden_size",
    "cross_attention_layers",
    "decoder_num_attention_heads",
    "decoder_sparse_step",
    "deterministic_flash_attn",
    "do_blenderbot_90_layernorm",
    "do_layer_norm_before",
    "do_stable_layer_norm",
    "emb_layer_norm_before",
    "embedding_multiplier",
    "encoder_sparse_step",
    "exponential_decay_length_penalty",
    "feat_extract_norm",
    "feat_proj_layer_norm",
    "ffn_norm",
    "final_logit_softcapping",
    "full_attn_alpha_factor",
    "full_attn_beta_factor",
    "full_attn_idxs",
    "guided_attention_loss_num_heads",
    "guided_attention_loss_scale",
    "guided_attention_loss_sigma",
    "head_in_index",
    "init_layernorm_from_vision_encoder",
    "initializer_normal_std",
    "is_gated_act",
    "keys_to_ignore_at_inference",
    "layer_norm_elementwise_affine",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "layer_scale_init_value",
    "layernorm_embedding",
    "layernorm_epsilon",
    "layerscale_value",
    "layers_block_type",
    "linear_attn_alpha_factor",
    "linear_attn_beta_factor",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
    "lm_head_bias",
    "lm_head_multiplier",
    "logit_scale",
    "logit_scale_init_value",
    "logits_scaling",
    "mamba_chunk_size",
    "mamba_d_head",
    "mamba_head_dim",
    "mamba_n_heads",
    "mamba_norm_before_gate",
    "mamba_num_heads",
    "mamba_rms_norm",
    "mask_channel_length",
    "mask_channel_min_space",
    "mask_channel_other",
    "mask_channel_prob",
    "mask_channel_selection",
    "mask_feature_length",
    "mask_feature_min_masks",
    "mask_feature_prob",
    "mask_index",
    "mask_ratio",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_time_min_space",
    "mask_time_other",
    "mask_time_prob",
    "mask_time_selection",
    "mask_token",
    "masked_softmax_fusion",
    "max_2d_position_embeddings",
    "max_position_embeddings",
    "max_source_positions",
    "max_target_positions",
    "max_logit_scale",
    "mit_num_attention_heads",
    "mlp_layer_types",
    "mlp_multipliers",
    "moe_gate",
    "moe_norm_min",
    "n_positions",
    "no_mask_channel_overlap",
    "no_mask_time_overlap",
    "norm_bias",
    "norm_eps",
    "norm_epsilon",
    "norm_pix_loss",
    "norm_topk_prob",
    "norm_type",
    "normalize_before",
    "normalize_embedding",
    "normalize_router_prob_before_dropping",
    "num_global_layers",
    "num_local_experts",
    "num_sparse_decoder_layers",
    "num_sparse_encoder_layers",
    "original_rope",
    "output_a3_attentions",
    "output_attentions",
    "pool_scales",
    "pooler_num_attention_heads",
    "pooler_size_per_head",
    "num_ln_in_parallel_attn",
    "parallel_attn",
    "position_id_per_seconds",
    "prediction_head_size",
    "post_layer_norm",
    "pre_allocate_kv_cache",
    "pre_norm",
    "qkv_bias",
    "query_bias",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "reorder_and_upcast_attn",
    "rescale_prenorm_residual",
    "residual_multiplier",
    "reset_position_index_per_cell",
    "rmsnorm",
    "rms_norm_eps",
    "routed_scaling_factor",
    "router_scaling_factor",
    "scale_attention_softmax_in_fp32",
    "scale_decoder_outputs",
    "scale_embedding",
    "scale_factor",
    "scale_sqrt_depth",
    "sequence_parallel_norm_across_tp",
    "share_layernorm",
    "sparse_pred_ignore_index",
    "sparse_prediction",
    "ssm_in_multiplier",
    "ssm_multipliers",
    "ssm_out_multiplier",
    "static_position_embeddings",
    "swin_norm",
    "temperature",
    "use_absolute_position_embeddings",
    "use_auxiliary_head",
    "use_batch_norm_in_fusion_residual",
    "use_bias_in_fusion_residual",
    "use_flash_attention",
    "use_gated_activation",
    "use_gated_mlp",
    "use_guided_attention_loss",
    "use_learned_position_embeddings",
    "use_post_norm",
    "use_qkv_bias",
    "use_flash_attn",
    "use_head",
    "use_mask_token",
    "use_mid_position_embeddings",
    "use_normalized_answer_loss",
    "vision_use_head",
};

// Keys that published files have with the value that says what the type's code does, and that this code does not read.
struct AsTheCodeHasIt {
  absl::string_view types;  // Separated by spaces.
  absl::string_view key;
  absl::string_view value;  // JSON.
};
constexpr AsTheCodeHasIt kAsTheCodeHasThem[] = {
    {"llama", "rope_interleaved", "false"},  // SmolLM2.
    {"qwen2", "use_mrope", "false"},         // Qwen2.5 and what was made of it.
    {"phi3", "full_attn_mod", "1"},          // Phi-4-mini: every layer is whole.
    {"gptj codegen", "rotary", "true"},
    {"gptj codegen starcoder2", "scale_attn_weights", "true"},
    {"cohere2 cohere2_moe", "rotary_pct", "1"},
    {"cohere2 cohere2_moe", "use_qk_norm", "false"},
    {"cohere2 cohere2_moe", "position_embedding_type", R"("rope_gptj")"},  // The interleaved form.
    {"apertus", "post_norm", "false"},
    {"apertus", "qk_norm", "true"},
    {"albert", "down_scale_factor", "1"},
    {"blenderbot", "extra_layer_norm", "false"},
    {"blenderbot", "layernorm_variant", R"("prelayernorm")"},
    {"bloom", "offset_alibi", "100"},
    {"bloom", "skip_bias_add_qkv", "false"},
    {"granitemoehybrid", "normalization_function", R"("rmsnorm")"},
    {"modernbert modernbert-decoder", "position_embedding_type", R"("absolute")"},
    {"modernbert modernbert-decoder", "position_embedding_type", R"("sans_pos")"},  // mmBERT.
    {"umt5", "scalable_attention", "true"},
};

// Keys that published files have beside the one that the type's code reads, with its value.
struct SecondName {
  absl::string_view types;  // Separated by spaces.
  absl::string_view key;
  const char* read;
};
constexpr SecondName kSecondNames[] = {
    {"gemma2", "sliding_window_size", "sliding_window"},
    {"lfm2 lfm2_moe", "block_norm_eps", "norm_eps"},
};

bool Contains(absl::Span<const absl::string_view> list, absl::string_view key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

bool HasWord(absl::string_view key, absl::Span<const absl::string_view> words) {
  return std::any_of(words.begin(), words.end(),
                     [key](absl::string_view word) { return absl::StrContains(key, word); });
}

// Whether the caller has set the setting that a key of this name may be about.
bool IsSettled(absl::string_view key, const CallerSettings& caller) {
  return (caller.rotary && HasWord(key, {"rope", "rotary", "max_position"})) ||
         (caller.window && HasWord(key, {"slid", "window", "layer_types", "local", "global", "pattern"})) ||
         (caller.scale && HasWord(key, {"scal", "multiplier", "pre_attn"})) ||
         (caller.softcap && HasWord(key, {"softcap"})) || (caller.norms && HasWord(key, {"norm"})) ||
         (caller.causal && HasWord(key, {"causal", "bidirection", "is_decoder"})) ||
         (caller.alibi_slopes && HasWord(key, {"alibi"})) || (caller.sinks && HasWord(key, {"sink"})) ||
         (caller.num_heads > 0 && HasWord(key, {"head", "kv"}));
}

bool IsApplied(absl::string_view key, const ModelConfig& config) {
  if (config.rules() == nullptr) return false;
  // What `layer_types` was made of.
  if (key == "_sliding_window_pattern") return config.Reads("layer_types") && config.Says("layer_types");
  if (config.Reads(std::string(key).c_str()) || Contains(kApplied, key)) return true;
  if (config.rules()->rotary != RotaryForm::kNone && Contains(kRotaryKeys, key)) return true;
  if (key == "is_decoder") return config.rules()->mask != MaskRule::kNone;
  return false;
}

bool IsOneOf(absl::string_view types, const ModelConfig& config) {
  const std::vector<std::string> list = absl::StrSplit(types, ' ');
  return std::find(list.begin(), list.end(), config.model_type()) != list.end();
}

// Whether the key has the value that says what the code of the type does.
bool IsAsTheCodeHasIt(absl::string_view key, const nlohmann::json& value, const ModelConfig& config) {
  return std::any_of(std::begin(kAsTheCodeHasThem), std::end(kAsTheCodeHasThem), [&](const AsTheCodeHasIt& known) {
    return key == known.key && IsOneOf(known.types, config) &&
           value == nlohmann::json::parse(known.value.begin(), known.value.end());
  });
}

// Whether the key has the number of the other key that the code of the type reads.
bool IsSecondName(absl::string_view key, const nlohmann::json& value, const ModelConfig& config) {
  return std::any_of(std::begin(kSecondNames), std::end(kSecondNames), [&](const SecondName& known) {
    if (key != known.key || !IsOneOf(known.types, config)) return false;
    if (config.Has(known.read)) return value == config.json().at(known.read);
    const std::optional<double> standard = config.Standard(known.read);
    return standard && value == nlohmann::json(*standard);
  });
}

// Whether the key, beside the parts' configurations, is known to be about none of them.
bool IsJoint(absl::string_view key, const ModelConfig& config) {
  const std::vector<std::string> keys = absl::StrSplit(std::string(config.joint_keys()), ' ');
  return std::find(keys.begin(), keys.end(), std::string(key)) != keys.end();
}

// Whether the key is about training alone, or about a token.
bool HasInertEnding(absl::string_view key) {
  for (const absl::string_view ending :
       {"dropout", "dropout_prob", "dropout_rate", "_pdrop", "_token_id", "_token_index"}) {
    if (absl::EndsWith(key, ending)) return true;
  }
  return false;
}

// Whether the value may have an effect.
bool IsLive(const nlohmann::json& value) {
  return !value.is_null() && !((value.is_array() || value.is_object()) && value.empty());
}

// Whether the key holds a configuration of its own, of a part or of something else than attention.
bool IsConfiguration(absl::string_view key, const ModelConfig& config) {
  if (!absl::EndsWith(key, "_config")) return false;
  return config.Reads(std::string(key).c_str()) ||
         !HasWord(key, {"alibi", "attention", "attn", "rope", "rotary", "slid"});
}

absl::Status NotKnown(absl::string_view key, const ModelConfig& config) {
  const char* const way_out =
      absl::EndsWith(key, "_config")
          ? "Remove the key if the layer is to be computed without it"
          : "Set what it stands for in the layer's configuration, or remove the key if it is about something else";
  return absl::InvalidArgumentError(absl::StrCat("'", key.substr(0, 64),
                                                 "' is set, and what it does to the attention of a ",
                                                 config.model_type(), " model is not known. ", way_out));
}

}  // namespace

absl::Status CheckInnerKeys(const ModelConfig& inner, absl::string_view name, absl::string_view known,
                            const CallerSettings& caller) {
  const std::vector<std::string> words = absl::StrSplit(std::string(known), ' ');
  for (const auto& [key, value] : inner.json().items()) {
    const std::string lower = absl::AsciiStrToLower(key);
    if (!IsLive(value) || value == false || !HasWord(lower, kWords)) continue;
    if (std::find(words.begin(), words.end(), key) != words.end()) continue;
    if (Contains(kInert, key) || HasInertEnding(lower) || IsSettled(lower, caller)) continue;
    return NotKnown(absl::StrCat(name, ".", key), inner);
  }
  return absl::OkStatus();
}

absl::Status CheckModelKeys(const ModelConfig& config, const CallerSettings& caller) {
  for (const nlohmann::json* const json : {&config.json(), &config.outer()}) {
    if (!json->is_object()) continue;
    for (const auto& [key, value] : json->items()) {
      const std::string lower = absl::AsciiStrToLower(key);
      const bool may_matter = json == &config.json() ? HasWord(lower, kWords) : HasWord(lower, kOuterWords);
      if (!IsLive(value) || !may_matter || IsConfiguration(lower, config)) continue;
      if (Contains(kInert, key) || HasInertEnding(lower)) continue;
      if ((json == &config.json() && IsApplied(key, config)) || IsSettled(lower, caller)) continue;
      if (json == &config.json() && (IsAsTheCodeHasIt(key, value, config) || IsSecondName(key, value, config))) {
        continue;
      }
      if (json == &config.outer() && IsJoint(key, config)) continue;
      if (key == "is_decoder" && value == false) continue;
      return NotKnown(key, config);
    }
  }
  return absl::OkStatus();
}

}  // namespace attend::formats
