#include "server/layers/hugging_face_config.h"

#include <cctype>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "formats/model_config.h"
#include "server/layers/hugging_face_rotary.h"

namespace attend::server {
namespace {

// What a prefix says about the layer's place in its model.
struct Place {
  std::optional<std::int64_t> index;  // Of the layer.
  bool in_decoder = false;            // Of an encoder-decoder.
  bool is_cross = false;              // Keys and values come from elsewhere.
};

Place PlaceOf(std::string_view prefix) {
  Place place;
  const std::string text(prefix);
  for (const absl::string_view part : absl::StrSplit(text, '.')) {
    std::int32_t number = 0;
    if (!place.index && absl::SimpleAtoi(part, &number) && number >= 0) place.index = number;
    if (part == "decoder") place.in_decoder = true;
    if (part == "EncDecAttention" || part == "encoder_attn" || part == "crossattention") place.is_cross = true;
  }
  return place;
}

// A named layer of T5's decoder: block.N.layer.1 is the attention to the encoder.
bool IsT5Cross(const formats::ModelConfig& config, std::string_view prefix) {
  return config.IsModel({"t5", "mt5", "umt5"}) && absl::StrContains({prefix.data(), prefix.size()}, ".layer.1");
}

bool IsCausal(formats::ModelConfig& config, const Place& place) {
  if (place.is_cross) return false;
  if (config.Boolean("is_encoder_decoder").value_or(false) ||
      config.IsModel({"t5", "mt5", "umt5", "bart", "mbart", "whisper", "marian", "m2m_100", "pegasus"})) {
    return place.in_decoder;
  }
  if (config.Boolean("is_decoder").value_or(false)) return true;
  if (const nlohmann::json* const architectures = config.Find("architectures"); architectures != nullptr) {
    for (const nlohmann::json& architecture : *architectures) {
      const auto* const name = architecture.get_ptr<const std::string*>();
      if (name != nullptr && (absl::EndsWith(*name, "ForCausalLM") || *name == "GPT2LMHeadModel")) return true;
    }
  }
  return config.IsModel({"llama",   "mistral",    "mixtral", "qwen2",       "qwen2_moe", "qwen3",  "qwen3_moe",
                         "gemma",   "gemma2",     "gemma3",  "gemma3_text", "phi",       "phi3",   "gpt2",
                         "gpt_neo", "gpt_neox",   "gptj",    "codegen",     "opt",       "bloom",  "mpt",
                         "falcon",  "stablelm",   "olmo",    "olmo2",       "olmo3",     "cohere", "cohere2",
                         "granite", "starcoder2", "smollm3", "glm",         "glm4",      "gpt_oss"});
}

void SetHeads(formats::ModelConfig& config, const Place& place, v1::LayerConfig& layer) {
  std::optional<std::int64_t> heads;
  if (config.Boolean("is_encoder_decoder").value_or(false)) {
    heads = config.Integer({place.in_decoder ? "decoder_attention_heads" : "encoder_attention_heads"});
  }
  if (!heads) heads = config.Integer({"num_attention_heads", "n_head", "n_heads", "num_heads"});
  if (heads) layer.set_num_heads(static_cast<std::int32_t>(*heads));
  std::optional<std::int64_t> kv_heads = config.Integer({"num_key_value_heads"});
  if (config.IsModel({"falcon"})) {  // Its older files say num_kv_heads of models that use one only.
    const bool is_new = config.Boolean("new_decoder_architecture").value_or(false);
    kv_heads = is_new                                         ? config.Integer({"num_kv_heads"})
               : config.Boolean("multi_query").value_or(true) ? std::optional<std::int64_t>(1)
                                                              : std::nullopt;
  }
  if (kv_heads) layer.set_num_kv_heads(static_cast<std::int32_t>(*kv_heads));
}

std::int64_t HeadDim(formats::ModelConfig& config, const v1::LayerConfig& layer) {
  if (const auto dim = config.Integer({"head_dim", "d_kv"})) return *dim;
  const auto hidden = config.Integer({"hidden_size", "n_embd", "d_model", "dim"});
  return hidden && layer.num_heads() > 0 ? *hidden / layer.num_heads() : 0;
}

// Whether the layer sees a window only, of a model in which some do. `pattern` decides for a layer's index.
template <typename Pattern>
bool IsSlidingAt(formats::ModelConfig& config, const Place& place, const char* key, const Pattern& pattern) {
  if (place.index) return pattern(*place.index);
  config.Fail(key, "differs between layers, and the prefix has no number that says which one this is");
  return false;
}

bool IsSliding(formats::ModelConfig& config, const Place& place) {
  if (const nlohmann::json* const types = config.Find("layer_types"); types != nullptr && types->is_array()) {
    return IsSlidingAt(config, place, "layer_types", [&](std::int64_t index) {
      if (index >= static_cast<std::int64_t>(types->size())) {
        config.Fail("layer_types", "has fewer entries than the prefix's number");
        return false;
      }
      return (*types)[static_cast<std::size_t>(index)] == "sliding_attention";
    });
  }
  if (config.IsModel({"gemma2"})) {
    return IsSlidingAt(config, place, "sliding_window", [](std::int64_t index) { return index % 2 == 0; });
  }
  if (config.IsModel({"gemma3", "gemma3_text", "cohere2"})) {
    const std::int64_t standard = config.IsModel({"cohere2"}) ? 4 : 6;
    const std::int64_t pattern = config.Integer({"sliding_window_pattern"}).value_or(standard);
    return IsSlidingAt(config, place, "sliding_window",
                       [pattern](std::int64_t index) { return pattern == 0 || (index + 1) % pattern != 0; });
  }
  if (config.IsModel({"modernbert"})) {
    const std::int64_t period = config.Integer({"global_attn_every_n_layers"}).value_or(3);
    return IsSlidingAt(config, place, "global_attn_every_n_layers",
                       [period](std::int64_t index) { return period == 0 || index % period != 0; });
  }
  if (config.IsModel({"gpt_neo"})) {
    const nlohmann::json* const kinds = config.Find("attention_layers");
    return IsSlidingAt(config, place, "attention_layers", [kinds](std::int64_t index) {
      if (kinds == nullptr || !kinds->is_array()) return index % 2 == 1;
      return index < static_cast<std::int64_t>(kinds->size()) && (*kinds)[static_cast<std::size_t>(index)] == "local";
    });
  }
  if (!config.Find("sliding_window")) return false;
  // Qwen has a window in its file that is used only when it says so, and then by its last layers.
  if (config.IsModel({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe"})) {
    if (!config.Boolean("use_sliding_window").value_or(false)) return false;
    const std::int64_t first = config.Integer({"max_window_layers"}).value_or(28);
    return IsSlidingAt(config, place, "max_window_layers", [first](std::int64_t index) { return index >= first; });
  }
  return config.Boolean("use_sliding_window").value_or(true);
}

// A window of W tokens is the query's own and the W - 1 before it.
void SetWindow(formats::ModelConfig& config, v1::AttentionOptions& options) {
  if (config.IsModel({"modernbert"})) {
    const std::int64_t half = config.Integer({"local_attention"}).value_or(128) / 2;
    options.set_sliding_window_left(half);
    options.set_sliding_window_right(half);
    return;
  }
  const auto window = config.IsModel({"gpt_neo"}) ? config.Integer({"window_size"}).value_or(256)
                                                  : config.Integer({"sliding_window"}).value_or(0);
  if (window < 1) {
    config.Fail("sliding_window", "must be at least 1 for a layer that slides");
  } else {
    options.set_sliding_window_left(window - 1);
  }
}

void SetScale(formats::ModelConfig& config, const Place& place, std::int64_t head_dim, v1::AttentionOptions& options) {
  if (config.IsModel({"t5", "mt5", "umt5", "gpt_neo"})) options.set_scale(1);
  if (const auto scalar = config.Number({"query_pre_attn_scalar"})) {
    if (!(*scalar > 0)) return config.Fail("query_pre_attn_scalar", "must be positive");
    options.set_scale(static_cast<float>(1 / std::sqrt(*scalar)));
  }
  if (const auto multiplier = config.Number({"attention_multiplier"}); multiplier && config.IsModel({"granite"})) {
    options.set_scale(static_cast<float>(*multiplier));
  }
  formats::ModelConfig mpt = config.Object("attn_config");
  if (const auto scale = mpt.Number({"softmax_scale"})) options.set_scale(static_cast<float>(*scale));
  config.Update(mpt.status());
  if (!config.IsModel({"gpt2"})) return;
  const bool is_scaled = config.Boolean("scale_attn_weights").value_or(true);
  const bool by_layer = config.Boolean("scale_attn_by_inverse_layer_idx").value_or(false);
  if (is_scaled && !by_layer) return;
  if (by_layer && !place.index) {
    return config.Fail("scale_attn_by_inverse_layer_idx", "is set, and the prefix has no number of the layer");
  }
  if (is_scaled && head_dim == 0) return config.Fail("n_embd", "is needed for the scale");
  const double scale = is_scaled ? 1 / std::sqrt(static_cast<double>(head_dim)) : 1;
  options.set_scale(static_cast<float>(by_layer ? scale / static_cast<double>(*place.index + 1) : scale));
}

// ALiBi's slopes (Press et al. 2022): a geometric sequence for the largest power of two of heads, and for the rest
// every other one of twice as many.
std::vector<float> AlibiSlopes(std::int64_t heads, double max_bias) {
  std::int64_t power = 1;
  while (power * 2 <= heads) power *= 2;
  std::vector<float> slopes;
  for (std::int64_t i = 1; i <= power; ++i) {
    slopes.push_back(static_cast<float>(std::exp2(-max_bias * static_cast<double>(i) / static_cast<double>(power))));
  }
  for (std::int64_t i = 1; i <= 2 * (heads - power); i += 2) {
    slopes.push_back(
        static_cast<float>(std::exp2(-max_bias * static_cast<double>(i) / static_cast<double>(2 * power))));
  }
  return slopes;
}

void SetAlibi(formats::ModelConfig& config, std::int64_t heads, v1::AttentionOptions& options) {
  formats::ModelConfig mpt = config.Object("attn_config");
  const bool is_mpt = config.IsModel({"mpt"}) && mpt.Boolean("alibi").value_or(true);
  const double max_bias = is_mpt ? mpt.Number({"alibi_bias_max"}).value_or(8) : 8;
  config.Update(mpt.status());
  const bool is_falcon = config.IsModel({"falcon"}) && config.Boolean("alibi").value_or(false);
  if (!config.IsModel({"bloom"}) && !is_mpt && !is_falcon) return;
  if (heads < 1 || heads > 1024) return config.Fail("n_head", "must be between 1 and 1024");
  if (is_falcon) return config.Fail("alibi", "of Falcon, which scales it with the scores, is not supported");
  std::vector<float> slopes = AlibiSlopes(heads, max_bias);
  if (is_mpt && (heads & (heads - 1)) != 0) {
    // MPT takes twice as many and then first the second of each pair.
    std::int64_t power = 1;
    while (power < heads) power *= 2;
    const std::vector<float> all = AlibiSlopes(power, max_bias);
    slopes.clear();
    for (std::size_t start : {std::size_t{1}, std::size_t{0}}) {
      for (std::size_t i = start; i < all.size(); i += 2) slopes.push_back(all[i]);
    }
    slopes.resize(static_cast<std::size_t>(heads));
  }
  v1::Tensor& tensor = *options.mutable_alibi_slopes();
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.add_shape(heads);
  tensor.mutable_values()->Assign(slopes.begin(), slopes.end());
}

void SetNorms(formats::ModelConfig& config, v1::LayerConfig& layer) {
  if (config.IsModel({"gemma3", "gemma3_text", "qwen3_next"})) layer.set_norm_adds_one(true);
  if (config.IsModel({"cohere", "stablelm"})) layer.set_norm_kind(v1::NORM_KIND_LAYER);
  if (const auto epsilon = config.Number({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"})) {
    layer.set_norm_epsilon(static_cast<float>(*epsilon));
  }
}

// OLMo, DBRX and MPT can clamp queries, keys and values.
void RefuseClipping(formats::ModelConfig& config) {
  if (config.Find("clip_qkv") != nullptr || config.Object("attn_config").Find("clip_qkv") != nullptr) {
    config.Fail("clip_qkv", "is set, which changes what the layer computes and is not supported");
  }
}

void RefuseRelativePositions(formats::ModelConfig& config) {
  const std::string type = config.Text("position_embedding_type");
  if (type.empty() || type == "absolute" || type == "rope" || type == "rotary" || type == "learned") return;
  if (absl::StartsWith(type, "relative")) {
    config.Fail("position_embedding_type", "is relative, which is not supported");
  }
}

}  // namespace

absl::StatusOr<v1::LayerConfig> ParseHuggingFaceConfig(std::string_view json, std::string_view prefix,
                                                       const v1::LayerConfig& caller) {
  absl::StatusOr<formats::ModelConfig> parsed = formats::ModelConfig::Parse(json, prefix);
  if (!parsed.ok()) return parsed.status();
  formats::ModelConfig& config = *parsed;
  Place place = PlaceOf(prefix);
  place.is_cross = place.is_cross || IsT5Cross(config, prefix);

  v1::LayerConfig layer;
  SetHeads(config, place, layer);
  const std::int64_t head_dim = HeadDim(config, layer);
  if (IsCausal(config, place)) layer.mutable_options()->set_causal(v1::CAUSAL_MODE_BOTTOM_RIGHT);
  const bool caller_slides = caller.options().has_sliding_window_left() || caller.options().has_sliding_window_right();
  const bool sliding = !caller_slides && IsSliding(config, place);
  if (sliding) SetWindow(config, *layer.mutable_options());
  if (!caller.has_rotary_embedding() && !place.is_cross) {
    if (auto rotary = RotaryOf(config, head_dim, sliding)) *layer.mutable_rotary_embedding() = *std::move(rotary);
  }
  if (!caller.options().has_scale()) SetScale(config, place, head_dim, *layer.mutable_options());
  if (const auto softcap = config.Number({"attn_logit_softcapping"})) {
    layer.mutable_options()->set_softcap(static_cast<float>(*softcap));
  }
  if (!caller.options().has_alibi_slopes()) SetAlibi(config, layer.num_heads(), *layer.mutable_options());
  SetNorms(config, layer);
  RefuseRelativePositions(config);
  RefuseClipping(config);
  if (!config.status().ok()) return config.status();
  return layer;
}

}  // namespace attend::server
