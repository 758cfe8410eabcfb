#include "formats/hugging_face/hugging_face_config.h"

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_place.h"

namespace attend::formats {
namespace {

std::string OfType(const ModelConfig& config) { return absl::StrCat("model type ", config.model_type()); }

// Decides what a layer is by its index, for what differs between layers.
template <typename Decide>
bool DecideByIndex(ModelConfig& config, const LayerPlace& place, const char* key, const Decide& decide) {
  if (place.index) return decide(*place.index);
  config.Fail(key, "differs between layers, and the prefix has no number that says which one this is");
  return false;
}

// The entry of a list with one for each layer, or the one that all entries are; null with a status when there is none.
const nlohmann::json* EntryFor(ModelConfig& config, const LayerPlace& place, const char* key,
                               const nlohmann::json& list) {
  const bool all_alike =
      !list.empty() && std::all_of(list.begin(), list.end(), [&](const auto& entry) { return entry == list[0]; });
  if (!place.index && all_alike) return &list[0];
  const nlohmann::json* entry = nullptr;
  DecideByIndex(config, place, key, [&](std::int64_t index) {
    if (index < static_cast<std::int64_t>(list.size())) {
      entry = &list[static_cast<std::size_t>(index)];
    } else {
      config.Fail(key, "has fewer entries than the prefix's number");
    }
    return true;
  });
  return entry;
}

const nlohmann::json* ListAt(ModelConfig& config, const char* key) {
  const nlohmann::json* const list = config.Reads(key) ? config.Find(key) : nullptr;
  if (list == nullptr || list->is_array()) return list;
  config.Fail(key, "is not a list");
  return nullptr;
}

void SetCausality(ModelConfig& config, const LayerPlace& place, LayerSettings& layer) {
  const auto set = [&](bool is_causal, std::string origin) {
    layer.causal.Set(is_causal ? Causality::kBottomRight : Causality::kNone, std::move(origin));
  };
  if (place.is_cross && config.rules()->mask == MaskRule::kSeq2Seq &&
      !config.Boolean("is_encoder_decoder").value_or(true)) {
    return config.Fail("is_encoder_decoder", "is false, and the prefix is that of attention to an encoder");
  }
  if (place.is_cross) return set(false, "attention to another sequence, by the prefix");
  const MaskRule rule = config.rules()->mask;
  if (rule == MaskRule::kSeq2Seq) {
    if (place.in_decoder == place.in_encoder) {
      return config.Fail("model_type", absl::StrCat("is ", config.model_type(),
                                                    ", and the prefix does not say whether the layer is one of the "
                                                    "encoder or of the decoder; give the whole prefix, or set causal"));
    }
    return set(place.in_decoder, OfType(config));
  }
  bool is_causal = rule == MaskRule::kCausal;
  std::string origin = OfType(config);
  if (const auto decodes = config.Boolean("is_decoder"); decodes && rule == MaskRule::kDecoder) {
    is_causal = *decodes;
    origin = config.Origin("is_decoder");
  }
  if (const auto says = config.Boolean("is_causal")) {
    is_causal = *says;
    origin = config.Origin("is_causal");
  }
  if (config.Boolean("use_bidirectional_attention").value_or(false)) {
    if (config.outer().is_object()) {
      config.Fail("use_bidirectional_attention",
                  "is true in the text part of a model with others, whose code makes "
                  "other masks; set causal and the window in the layer's configuration");
    }
    is_causal = false;
    origin = config.Origin("use_bidirectional_attention");
  }
  set(is_causal, std::move(origin));
}

bool IsWordAt(ModelConfig& config, const LayerPlace& place, const char* key, const nlohmann::json& list,
              const char* word) {
  const nlohmann::json* const entry = EntryFor(config, place, key, list);
  return entry != nullptr && *entry == word;
}

// GPT-Neo's [[["global", "local"], 12]], one after the other.
nlohmann::json ExpandTypes(const nlohmann::json& types) {
  constexpr std::int64_t kMost = 4096;
  nlohmann::json list = nlohmann::json::array();
  for (const auto& group : types) {
    const bool is_group = group.is_array() && group.size() == 2 && group[0].is_array() && !group[0].empty();
    if (!is_group || !group[1].is_number_integer()) continue;
    for (std::int64_t i = 0; i < group[1] && static_cast<std::int64_t>(list.size()) < kMost; ++i) {
      for (const auto& word : group[0]) list.push_back(word);
    }
  }
  return list;
}

// What `layer_types` says of this layer; nothing when the file has none.
std::optional<bool> IsSlidingByType(ModelConfig& config, const LayerPlace& place) {
  const nlohmann::json* const types = ListAt(config, "layer_types");
  if (types == nullptr) return std::nullopt;
  const nlohmann::json* const entry = EntryFor(config, place, "layer_types", *types);
  if (entry == nullptr || *entry == "full_attention") return false;
  if (*entry == "sliding_attention") return true;
  config.Fail("layer_types", "has an entry for this layer that is neither full_attention nor sliding_attention");
  return false;
}

bool HasRotaryBySmolLm(ModelConfig& config, const LayerPlace& place);

// Models whose code makes windows by `layer_types` whatever `use_sliding_window` says.
void RefuseContradiction(ModelConfig& config, const LayerPlace& place) {
  const WindowRule rule = config.rules()->window;
  if ((rule != WindowRule::kSmolLm && rule != WindowRule::kByTypes) || !config.Has("layer_types")) return;
  if (!IsSlidingByType(config, place).value_or(false)) return;
  config.Fail("use_sliding_window",
              "is false, but layer_types says that this layer has a window. Set the window in the "
              "layer's configuration");
}

bool IsSliding(ModelConfig& config, const LayerPlace& place) {
  const WindowRule rule = config.rules()->window;
  if (rule == WindowRule::kNever) return false;
  if (config.Reads("use_sliding_window") && !config.Boolean("use_sliding_window").value_or(false)) {
    RefuseContradiction(config, place);
    return false;
  }
  if (config.Reads("sliding_window") && config.Find("sliding_window") == nullptr) return false;
  if (const auto by_type = IsSlidingByType(config, place)) return *by_type;
  switch (rule) {
    case WindowRule::kNever:
    case WindowRule::kByTypes: return false;  // The file has no list, which is an error already.
    case WindowRule::kAll: return true;
    case WindowRule::kLastLayers: {
      const std::int64_t first = config.Integer({"max_window_layers"}).value_or(0);
      return DecideByIndex(config, place, "max_window_layers", [&](std::int64_t i) { return i >= first; });
    }
    case WindowRule::kEven:
      return DecideByIndex(config, place, "sliding_window", [](std::int64_t i) { return i % 2 == 0; });
    case WindowRule::kPattern: {
      const std::int64_t period = config.Integer({"sliding_window_pattern"}).value_or(0);
      if (period < 1) config.Fail("sliding_window_pattern", "must be at least 1");
      return period >= 1 &&
             DecideByIndex(config, place, "sliding_window", [&](std::int64_t i) { return (i + 1) % period != 0; });
    }
    case WindowRule::kSmolLm: return !HasRotaryBySmolLm(config, place);
    case WindowRule::kGptNeo: {
      if (const auto* const kinds = ListAt(config, "attention_layers"); kinds != nullptr) {
        return IsWordAt(config, place, "attention_layers", *kinds, "local");
      }
      const nlohmann::json* const types = ListAt(config, "attention_types");
      return types != nullptr && IsWordAt(config, place, "attention_types", ExpandTypes(*types), "local");
    }
    case WindowRule::kModernBert: {
      const std::int64_t period = config.Integer({"global_attn_every_n_layers"}).value_or(0);
      if (period < 1) config.Fail("global_attn_every_n_layers", "must be at least 1");
      return period >= 1 && DecideByIndex(config, place, "global_attn_every_n_layers",
                                          [&](std::int64_t i) { return i % period != 0; });
    }
  }
  return false;
}

// A window of W tokens is the query's own and the W - 1 before it.
void SetWindow(ModelConfig& config, LayerSettings& layer) {
  const auto both_sides = [&](std::int64_t half, const char* key) {
    layer.window_left.Set(half, config.Origin(key));
    layer.window_right.Set(half, config.Origin(key));
  };
  if (config.rules()->window == WindowRule::kModernBert) {
    return both_sides(config.Integer({"local_attention"}).value_or(0) / 2, "local_attention");
  }
  const char* const key = config.rules()->window == WindowRule::kGptNeo ? "window_size" : "sliding_window";
  const std::int64_t window = config.Integer({key}).value_or(0);
  const bool is_causal = layer.causal && *layer.causal != Causality::kNone;
  if (window < 1) return config.Fail(key, "must be at least 1 for a layer that slides");
  if (is_causal) {
    layer.window_left.Set(window - 1, config.Origin(key));
  } else if (config.HasTrait(kHalvesWindow)) {
    both_sides(window / 2, key);
  } else {
    config.Fail(key,
                "is set in a model that is not causal; which keys its window has is not known. Set "
                "sliding_window_left and sliding_window_right in the layer's configuration");
  }
}

void SetScale(ModelConfig& config, const LayerPlace& place, std::int64_t head_dim, LayerSettings& layer) {
  const auto root = [&](const char* key) {
    if (head_dim == 0) config.Fail(key, "needs the size of a head, which is not known");
    return 1 / std::sqrt(static_cast<double>(head_dim == 0 ? 1 : head_dim));
  };
  if (config.HasTrait(kUnitScale)) layer.scale.Set(1, OfType(config));
  if (config.Reads("query_pre_attn_scalar")) {
    const double scalar = config.Number({"query_pre_attn_scalar"}).value_or(0);
    if (!(scalar > 0)) return config.Fail("query_pre_attn_scalar", "must be positive");
    layer.scale.Set(1 / std::sqrt(scalar), config.Origin("query_pre_attn_scalar"));
  }
  if (config.Reads("attention_multiplier")) {
    const auto multiplier = config.Number({"attention_multiplier"});
    if (!multiplier) return config.Fail("attention_multiplier", "must be a number");
    layer.scale.Set(*multiplier, config.Origin("attention_multiplier"));
  }
  if (config.Reads("key_multiplier")) {
    const double multiplier = config.Number({"key_multiplier"}).value_or(1);
    layer.scale.Set(multiplier * root("key_multiplier"), config.Origin("key_multiplier"));
  }
  if (!config.Reads("scale_attn_weights")) return;
  const bool is_scaled = config.Boolean("scale_attn_weights").value_or(true);
  const bool by_layer = config.Reads("scale_attn_by_inverse_layer_idx") &&
                        config.Boolean("scale_attn_by_inverse_layer_idx").value_or(false);
  if (is_scaled && !by_layer) return;
  const char* const key = by_layer ? "scale_attn_by_inverse_layer_idx" : "scale_attn_weights";
  if (by_layer && !place.index) return config.Fail(key, "is set, and the prefix has no number of the layer");
  const double scale = is_scaled ? root(key) : 1;
  layer.scale.Set(by_layer ? scale / static_cast<double>(*place.index + 1) : scale, config.Origin(key));
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

// MPT takes twice as many for a number of heads that is no power of two, and then first the second of each pair.
std::vector<float> MptSlopes(std::int64_t heads, double max_bias) {
  std::int64_t power = 1;
  while (power < heads) power *= 2;
  std::vector<float> all = AlibiSlopes(power, max_bias);
  if (power == heads) return all;
  std::vector<float> slopes;
  for (const std::size_t start : {std::size_t{1}, std::size_t{0}}) {
    for (std::size_t i = start; i < all.size(); i += 2) slopes.push_back(all[i]);
  }
  slopes.resize(static_cast<std::size_t>(heads));
  return slopes;
}

bool CheckSlopesHeads(ModelConfig& config, std::int64_t heads) {
  if (heads >= 1 && heads <= 1024) return true;
  config.Fail("n_head", "must be between 1 and 1024 for ALiBi");
  return false;
}

// MPT has its attention in a dictionary of its own.
void ReadMptAttention(ModelConfig& config, std::int64_t heads, const CallerSettings& caller, LayerSettings& layer) {
  ModelConfig attention = config.Object("attn_config");
  for (const char* const key :
       {"clip_qkv", "prefix_lm", "attn_uses_sequence_id", "qk_ln", "rope", "sliding_window_size"}) {
    const nlohmann::json* const value = attention.Find(key);
    if (value == nullptr || *value == false || *value == -1) continue;
    config.Fail(absl::StrCat("attn_config.", key),
                "is set, which changes what the layer computes and is not supported");
  }
  if (const std::string type = attention.Text("attn_type"); !type.empty() && type != "multihead_attention") {
    config.Fail("attn_config.attn_type", "must be multihead_attention; others are not supported");
  }
  if (const auto scale = attention.Number({"softmax_scale"}); scale && !caller.scale) {
    layer.scale.Set(*scale, "config.json: attn_config.softmax_scale");
  }
  const bool is_usual =
      attention.Boolean("alibi").value_or(true) && attention.Number({"alibi_bias_max"}).value_or(8) == 8;
  config.Update(attention.status());
  if (caller.alibi_slopes) return;
  if (!is_usual) {
    return config.Fail("attn_config",
                       "has alibi false or alibi_bias_max other than 8, which MPT's own code follows and "
                       "transformers does not. Set alibi_slopes in the layer's configuration");
  }
  if (CheckSlopesHeads(config, heads)) layer.alibi_slopes.Set(MptSlopes(heads, 8), OfType(config));
}

void SetAlibi(ModelConfig& config, std::int64_t heads, const CallerSettings& caller, LayerSettings& layer) {
  if (config.Reads("attn_config")) return ReadMptAttention(config, heads, caller, layer);
  if (caller.alibi_slopes) return;
  if (config.Reads("alibi") && config.Boolean("alibi").value_or(false)) {
    return config.Fail("alibi", "of Falcon, which scales it with the scores, is not supported");
  }
  if (!config.HasTrait(kAlibi) || !CheckSlopesHeads(config, heads)) return;
  layer.alibi_slopes.Set(AlibiSlopes(heads, 8), OfType(config));
}

void SetNorms(ModelConfig& config, LayerSettings& layer) {
  layer.norm_adds_one.Set(config.HasTrait(kAddsOne), OfType(config));
  layer.norm_kind.Set(config.HasTrait(kLayerNorm) ? NormKind::kLayer : NormKind::kRms, OfType(config));
  layer.norm_after_rotary.Set(config.HasTrait(kNormAfterRotary), OfType(config));
  for (const char* const key : {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"}) {
    if (!config.Reads(key)) continue;
    if (const auto epsilon = config.Number({key})) layer.norm_epsilon.Set(*epsilon, config.Origin(key));
  }
}

// RoFormer can turn its values too.
void RefuseTurnedValues(ModelConfig& config) {
  if (config.Reads("rotary_value") && config.Boolean("rotary_value").value_or(false)) {
    config.Fail("rotary_value", "is true, and a rotary embedding of values is not supported");
  }
}

// OLMo and others can clamp queries, keys and values, ChatGLM can put trained keys before all others.
void RefuseClippingAndPrefixes(ModelConfig& config) {
  for (const char* const key : {"clip_qkv", "pre_seq_len"}) {
    if (!config.Reads(key) || config.Find(key) == nullptr) continue;
    config.Fail(key, "is set, which changes what the layer computes and is not supported");
  }
}

void RefuseRelativePositions(ModelConfig& config) {
  for (const char* const key : {"use_relative_position_bias", "use_shared_relative_position_bias"}) {
    if (config.Reads(key) && config.Boolean(key).value_or(false)) {
      config.Fail(key, "is true, and relative position biases are not supported");
    }
  }
  if (!config.Reads("position_embedding_type")) return;
  const std::string type = config.Text("position_embedding_type");
  for (const char* const known : {"", "absolute", "rope", "rotary", "learned", "nope"}) {
    if (type == known) return;
  }
  config.Fail("position_embedding_type", absl::StrCat("is ", type.substr(0, 32), ", which is not supported"));
}

// SmolLM3's `no_rope_layers` has 1 for layers that have a rotary embedding.
bool HasRotaryBySmolLm(ModelConfig& config, const LayerPlace& place) {
  if (const auto* const list = ListAt(config, "no_rope_layers"); list != nullptr) {
    const nlohmann::json* const entry = EntryFor(config, place, "no_rope_layers", *list);
    return entry != nullptr && *entry == 1;
  }
  const std::int64_t interval = config.Integer({"no_rope_layer_interval"}).value_or(0);
  if (interval < 1) config.Fail("no_rope_layer_interval", "must be at least 1");
  return interval >= 1 && DecideByIndex(config, place, "no_rope_layer_interval",
                                        [&](std::int64_t i) { return (i + 1) % interval != 0; });
}

// Whether the layer has a rotary embedding, and who says so.
std::pair<bool, std::string> HasRotary(ModelConfig& config, const LayerPlace& place, bool is_sliding) {
  if (place.is_cross) return {false, "attention to another sequence, by the prefix"};
  if (config.rules()->rotary == RotaryForm::kNone) return {false, OfType(config)};
  if (config.HasTrait(kRotaryByType)) {
    const std::string type = config.Text("position_embedding_type");
    return {type == "rope" || type == "rotary", config.Origin("position_embedding_type")};
  }
  if (config.Reads("alibi") && config.Boolean("alibi").value_or(false)) return {false, config.Origin("alibi")};
  if (config.Reads("no_rope_layers")) return {HasRotaryBySmolLm(config, place), config.Origin("no_rope_layers")};
  if (!config.HasTrait(kRotaryWhereSliding)) return {true, OfType(config)};
  const bool everywhere = config.HasTrait(kRotaryWithoutWindow) && config.Find("sliding_window") == nullptr;
  return {is_sliding || everywhere, absl::StrCat(OfType(config), ": only layers with a window have one")};
}

void SetRotary(ModelConfig& config, const LayerPlace& place, std::int64_t head_dim, bool is_sliding,
               LayerSettings& layer) {
  const auto [has, origin] = HasRotary(config, place, is_sliding);
  if (has) {
    layer.rotary = RotaryOf(config, head_dim, is_sliding);
  } else {
    layer.rotary.Set(Rotary{.form = RotaryForm::kNone}, origin);
  }
}

// What the caller has to set so that a model whose rules are not known can be used.
absl::Status CheckSettled(const ModelConfig& config, const CallerSettings& caller) {
  std::vector<std::string> open;
  if (caller.num_heads == 0) open.emplace_back("num_heads");
  if (!caller.causal) open.emplace_back("options.causal (CAUSAL_MODE_NONE if it is not)");
  if (!caller.rotary) open.emplace_back("rotary_embedding (form ROTARY_FORM_NONE if it has none)");
  if (!caller.scale) open.emplace_back("options.scale");
  if (open.empty()) return CheckModelKeys(config, caller);
  const std::string type = config.model_type().substr(0, 64);
  return absl::InvalidArgumentError(absl::StrCat(
      type.empty() ? "'model_type' is missing" : absl::StrCat("the model type '", type, "' is not known"),
      ", so that what its attention does beyond the weights would be guessed. Set in the layer's configuration: ",
      absl::StrJoin(open, ", ")));
}

}  // namespace

absl::Status CheckModelType(const ModelConfig& config) {
  if (config.rules() == nullptr || config.rules()->refused.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layers of the model type '", config.model_type(),
                                                 "' cannot be computed: ", std::string(config.rules()->refused)));
}

absl::Status ReadModelHeads(ModelConfig& config, std::string_view prefix, const CallerSettings& caller,
                            LayerSettings& layer) {
  if (config.rules() == nullptr) return CheckSettled(config, caller);
  const LayerPlace place = PlaceOf(prefix);
  const auto set = [&](Setting<std::int64_t>& heads, std::initializer_list<const char*> keys) {
    for (const char* const key : keys) {
      if (heads) return;
      if (const auto number = config.Integer({key})) heads.Set(*number, config.Origin(key));
    }
  };
  if (place.in_decoder) set(layer.num_heads, {"decoder_attention_heads"});
  if (place.in_encoder && !place.in_decoder) set(layer.num_heads, {"encoder_attention_heads"});
  std::optional<std::int64_t> other;
  // Its code knows no other name.
  if (config.Reads("num_heads")) set(layer.num_heads, {"num_heads"});
  for (const char* const key : {"num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"}) {
    const auto number = config.Integer({key});
    if (number && other && *number != *other) config.Fail(key, "is another number than another name for it has");
    if (number) other = number;
    set(layer.num_heads, {key});
  }
  if (config.Reads("multi_query_group_num")) {
    if (!config.Boolean("multi_query_attention").value_or(false)) {
      config.Fail("multi_query_attention", "must be true; the order of rows without it is not supported");
    }
    set(layer.num_kv_heads, {"multi_query_group_num"});
    return config.status();
  }
  // Falcon's older files say num_kv_heads of models that use one only.
  const bool is_old_falcon =
      config.Reads("new_decoder_architecture") && !config.Boolean("new_decoder_architecture").value_or(false);
  if ((is_old_falcon || !config.Reads("new_decoder_architecture")) && config.Reads("multi_query")) {
    // GPT-BigCode makes its num_key_value_heads of this.
    if (config.Boolean("multi_query").value_or(false)) layer.num_kv_heads.Set(1, config.Origin("multi_query"));
  } else if (config.Reads("new_decoder_architecture")) {
    set(layer.num_kv_heads, {"num_kv_heads"});
  } else if (config.Reads("num_key_value_heads")) {
    set(layer.num_kv_heads, {"num_key_value_heads"});
  }
  return config.status();
}

absl::Status ReadModelConfig(ModelConfig& config, std::string_view prefix, std::int64_t head_dim,
                             std::int64_t num_heads, const CallerSettings& caller, LayerSettings& layer) {
  if (config.rules() == nullptr) return absl::OkStatus();  // ReadModelHeads has asked the caller.
  const LayerPlace place = PlaceOf(prefix);
  if (config.outer().is_object() && place.is_between_parts) {
    return absl::InvalidArgumentError(absl::StrCat("the layer at '", std::string(prefix.substr(0, 200)),
                                                   "' joins the parts of the model, and what it does is not known"));
  }
  for (const char* const key : {"head_dim", "d_kv", "kv_channels"}) {
    const auto dim = config.Integer({key});
    if (dim && head_dim > 0 && *dim != head_dim) {
      config.Fail(key,
                  absl::StrCat("is ", *dim, ", but the weights and the number of heads give each head ", head_dim));
    }
  }
  if (!caller.causal) SetCausality(config, place, layer);
  const bool sliding = !place.is_cross && (!caller.window || !caller.rotary) && IsSliding(config, place);
  if (sliding && !caller.window) SetWindow(config, layer);
  if (!caller.rotary) SetRotary(config, place, head_dim, sliding, layer);
  if (!caller.scale) SetScale(config, place, head_dim, layer);
  if (config.Reads("attn_logit_softcapping") && !caller.softcap) {
    if (const auto softcap = config.Number({"attn_logit_softcapping"})) {
      layer.softcap.Set(*softcap, config.Origin("attn_logit_softcapping"));
    }
  }
  SetAlibi(config, num_heads, caller, layer);
  SetNorms(config, layer);
  if (config.HasTrait(kRelativeBias) && !place.is_cross) {
    layer.notes.push_back(
        absl::StrCat(config.model_type(), " models add a bias by distance to the scores: send it as options.bias"));
  }
  // What nothing was said about is as the model's code has it, too.
  for (std::string* const origin : {&layer.num_kv_heads.origin, &layer.window_left.origin, &layer.scale.origin,
                                    &layer.softcap.origin, &layer.alibi_slopes.origin}) {
    if (origin->empty()) *origin = OfType(config);
  }
  RefuseRelativePositions(config);
  RefuseClippingAndPrefixes(config);
  RefuseTurnedValues(config);
  config.Update(CheckModelKeys(config, caller));
  return config.status();
}

absl::StatusOr<LayerSettings> ParseHuggingFaceConfig(std::string_view json, std::string_view prefix,
                                                     const CallerSettings& caller, std::int64_t head_dim) {
  absl::StatusOr<ModelConfig> config = ModelConfig::Parse(json, prefix);
  if (!config.ok()) return config.status();
  LayerSettings layer;
  absl::Status status = CheckModelType(*config);
  if (status.ok()) status = ReadModelHeads(*config, prefix, caller, layer);
  const std::int64_t num_heads = layer.num_heads.value.value_or(0);
  if (status.ok()) status = ReadModelConfig(*config, prefix, head_dim, num_heads, caller, layer);
  if (!status.ok()) return status;
  return layer;
}

}  // namespace attend::formats
