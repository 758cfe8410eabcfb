#include "formats/hugging_face/hugging_face_config.h"

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/hugging_face/by_layer.h"
#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_place.h"

namespace attend::formats {
namespace {

// Refuses a part of a model whose code lets the tokens of a prefix see each other, whatever the part's own type does;
// which tokens those are is known at each call alone. Returns whether it did.
bool RefusesPrefixMask(ModelConfig& config) {
  if (!config.outer().is_object() || config.rules()->mask != MaskRule::kCausal) return false;
  const auto type = config.outer().find("model_type");
  if (type == config.outer().end() || (*type != "paligemma" && *type != "colpali")) return false;
  config.Fail(
      "model_type",
      "is that of a model whose text has a prefix that sees all of itself, as each call says; set causal in the "
      "layer's configuration");
  return true;
}

// Whether the file says that there is no encoder: the whole model's key does, which a part has as any configuration
// has.
bool IsDecoderAlone(ModelConfig& config) {
  if (!config.outer().is_object()) return !config.Boolean("is_encoder_decoder").value_or(true);
  const auto says = config.outer().find("is_encoder_decoder");
  return says != config.outer().end() && *says == false;
}

// Refuses a layer that may be the encoder's where only the decoder's are supported, also when the caller says its mask.
void RefuseEncoder(ModelConfig& config, const LayerPlace& place) {
  const bool is_decoders = place.in_decoder && !place.in_encoder;
  if (!config.HasTrait(kDecoderAlone) || place.is_cross || is_decoders) return;
  config.Fail("model_type", absl::StrCat("is ", config.model_type(),
                                         ", and what the encoder of such a model does beyond plain attention is not "
                                         "supported; its decoder's layers are, by a prefix with 'decoder'"));
}

void SetCausality(ModelConfig& config, const LayerPlace& place, LayerSettings& layer) {
  const auto set = [&](bool is_causal, std::string origin) {
    layer.causal.Set(is_causal ? Causality::kBottomRight : Causality::kNone, std::move(origin));
  };
  if (place.is_cross && config.rules()->mask == MaskRule::kSeq2Seq && IsDecoderAlone(config)) {
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
  if (RefusesPrefixMask(config)) return;
  bool is_causal = rule == MaskRule::kCausal;
  std::string origin = OfType(config);
  if (const auto decodes = config.Boolean("is_decoder"); decodes && rule == MaskRule::kDecoder) {
    is_causal = *decodes;
    origin = config.Origin("is_decoder");
  }
  for (const char* const key : {"is_causal", "causal"}) {
    if (key == std::string_view("causal") && !config.Reads(key)) continue;
    const auto says = config.Boolean(key);
    if (!says && is_causal && config.Has(key)) {
      config.Fail(key, "is null, which is false to transformers 5 and nothing to others' code. Write true or false");
    }
    if (!says) continue;
    is_causal = *says;
    origin = config.Origin(key);
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
  const bool is_scaled = config.Boolean("scale_attn_weights").value_or(false);  // Null counts as false.
  const bool by_layer = config.Reads("scale_attn_by_inverse_layer_idx") &&
                        config.Boolean("scale_attn_by_inverse_layer_idx").value_or(false);
  if (is_scaled && !by_layer) return;
  const char* const key = by_layer ? "scale_attn_by_inverse_layer_idx" : "scale_attn_weights";
  if (by_layer && !place.index) return config.Fail(key, "is set, and the prefix has no number of the layer");
  const double scale = is_scaled ? root(key) : 1;
  layer.scale.Set(by_layer ? scale / static_cast<double>(*place.index + 1) : scale, config.Origin(key));
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

void RefuseNorms(ModelConfig& config, const CallerSettings& caller) {
  if (!config.HasTrait(kNormsNotKnown) || caller.norms || !config.Boolean("use_qk_norm").value_or(false)) return;
  config.Fail("use_qk_norm", absl::StrCat("is true, and which norms of query and key that gives ", config.model_type(),
                                          " models is not known. Set norm_kind and norm_epsilon in the layer's "
                                          "configuration"));
}

// RoFormer can turn its values too.
void RefuseTurnedValues(ModelConfig& config) {
  if (config.Reads("rotary_value") && config.Boolean("rotary_value").value_or(false)) {
    config.Fail("rotary_value", "is true, and a rotary embedding of values is not supported");
  }
}

// OLMo and others can clamp queries, keys and values, ChatGLM and MVP can put trained keys before all others.
void RefuseClippingAndPrefixes(ModelConfig& config) {
  if (config.Reads("use_prompt") && config.Boolean("use_prompt").value_or(false)) {
    config.Fail("use_prompt", "is true, and trained keys and values before all others are not supported");
  }
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
  // Versions of transformers differ in whether such a model can be without its rotary embedding.
  const bool is_always_turned = config.rules()->rotary != RotaryForm::kNone && !config.HasTrait(kRotaryByType);
  for (const char* const known : {"", "absolute", "rope", "rotary", "learned", "nope"}) {
    if (type == known && (!is_always_turned || type == "rope")) return;
  }
  config.Fail("position_embedding_type",
              absl::StrCat("is ", type.empty() ? "null" : type.substr(0, 32), ", which is not supported"));
}

// The base of this layer's rotary embedding where the file has a list of them; 0: it has none.
std::optional<double> BaseOfLayer(ModelConfig& config, const LayerPlace& place) {
  constexpr const char* kKey = "layer_rope_theta";
  const nlohmann::json* const list = ListAt(config, kKey);
  const nlohmann::json* const entry = list == nullptr ? nullptr : EntryFor(config, place, kKey, *list);
  if (entry == nullptr) return std::nullopt;
  if (entry->is_number() && entry->get<double>() >= 0) return entry->get<double>();
  config.Fail(kKey, "has an entry for this layer that is not a base of a rotary embedding, or 0");
  return std::nullopt;
}

// Cohere 2 with experts turns the queries and keys of its first layers, which have none, also where they see all.
bool IsTurnedForItsMlp(ModelConfig& config, const LayerPlace& place) {
  if (!config.Reads("mlp_layer_types")) return false;
  const nlohmann::json* const kinds = ListAt(config, "mlp_layer_types");
  return kinds != nullptr && config.Integer({"prefix_dense_sliding_window_pattern"}).value_or(0) == 1 &&
         IsWordAt(config, place, "mlp_layer_types", *kinds, "dense", "sparse");
}

// Whether OLMo Hybrid's parameters have null as the base, by which its code has no rotary embedding: so its published
// files do. Without parameters transformers 5 takes the base 10000, whatever its documentation says; `rope_scaling`
// goes before them.
bool HasNullBase(ModelConfig& config) {
  const nlohmann::json* const parameters = config.Find("rope_parameters");
  if (parameters == nullptr || !parameters->is_object() || config.Says("rope_scaling")) return false;
  const auto base = parameters->find("rope_theta");
  return base != parameters->end() && base->is_null();
}

// Whether the layer has a rotary embedding, and the origin of that.
std::pair<bool, std::string> HasRotary(ModelConfig& config, const LayerPlace& place, bool is_sliding) {
  if (place.is_cross) return {false, "attention to another sequence, by the prefix"};
  if (config.rules()->rotary == RotaryForm::kNone) return {false, OfType(config)};
  if (config.HasTrait(kRotaryByType)) {
    const std::string type = config.Text("position_embedding_type");
    return {type == "rope" || type == "rotary", config.Origin("position_embedding_type")};
  }
  if (config.Reads("alibi") && config.Boolean("alibi").value_or(false)) return {false, config.Origin("alibi")};
  if (config.Reads("rope_parameters") && HasNullBase(config)) return {false, config.Origin("rope_parameters")};
  if (config.Reads("no_rope_layers")) return {HasRotaryBySmolLm(config, place), config.Origin("no_rope_layers")};
  if (!config.HasTrait(kRotaryWhereSliding)) return {true, OfType(config)};
  const bool everywhere = config.HasTrait(kRotaryWithoutWindow) && config.Find("sliding_window") == nullptr;
  if (IsTurnedForItsMlp(config, place)) return {true, config.Origin("mlp_layer_types")};
  return {is_sliding || everywhere, absl::StrCat(OfType(config), ": only layers with a window have one")};
}

void SetRotary(ModelConfig& config, const LayerPlace& place, std::int64_t head_dim, bool is_sliding,
               LayerSettings& layer) {
  const auto [has, origin] = HasRotary(config, place, is_sliding);
  const std::optional<double> base = BaseOfLayer(config, place);
  if (has && base && *base == 0) {
    layer.rotary.Set(Rotary{.form = RotaryForm::kNone}, config.Origin("layer_rope_theta"));
  } else if (has) {
    layer.rotary = RotaryOf(config, head_dim, is_sliding, base);
    if (config.HasTrait(kTwoMagnitudes) && layer.rotary && !layer.rotary->long_frequencies.empty()) {
      layer.notes.push_back(absl::StrCat("texts of more than ", layer.rotary->original_context_length,
                                         " tokens are turned by long_factor, as the model's authors and transformers 4 "
                                         "do; transformers 5 keeps short_factor"));
    }
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

// The first of `keys` that there is, unless `heads` is set already.
void SetFirst(ModelConfig& config, std::initializer_list<const char*> keys, Setting<std::int64_t>& heads) {
  for (const char* const key : keys) {
    if (heads) return;
    if (const auto number = config.Integer({key})) heads.Set(*number, config.Origin(key));
  }
}

// The numbers of heads that encoder, decoder or attention to another sequence have of their own.
void SetHeadsOfPlace(ModelConfig& config, const LayerPlace& place, LayerSettings& layer) {
  if (place.is_cross && config.Reads("cross_num_attention_heads")) {
    SetFirst(config, {"cross_num_attention_heads"}, layer.num_heads);
    SetFirst(config, {"cross_num_key_value_heads"}, layer.num_kv_heads);
  }
  if (config.Reads("decoder_num_attention_heads")) {
    SetFirst(config, {place.in_decoder ? "decoder_num_attention_heads" : "encoder_num_attention_heads"},
             layer.num_heads);
    SetFirst(config, {place.in_decoder ? "decoder_num_key_value_heads" : "encoder_num_key_value_heads"},
             layer.num_kv_heads);
  }
  if (place.in_decoder) SetFirst(config, {"decoder_attention_heads"}, layer.num_heads);
  if (place.in_encoder && !place.in_decoder) SetFirst(config, {"encoder_attention_heads"}, layer.num_heads);
  if (!config.HasTrait(kHeadsOf64)) return;
  if (const auto size = config.Integer({"hidden_size"})) layer.num_heads.Set(*size / 64, config.Origin("hidden_size"));
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
  const auto set = [&config](Setting<std::int64_t>& heads, std::initializer_list<const char*> keys) {
    SetFirst(config, keys, heads);
  };
  SetHeadsOfPlace(config, place, layer);
  std::optional<std::int64_t> other;
  // Its code knows no other name.
  if (config.Reads("num_heads")) set(layer.num_heads, {"num_heads"});
  for (const char* const key : {"num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"}) {
    const auto number = config.Integer({key});
    if (number && other && *number != *other && caller.num_heads == 0) {
      config.Fail(key, absl::StrCat("is another number than another name for it has, in the file or in the code of ",
                                    config.model_type(), " models. Set num_heads in the layer's configuration"));
    }
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
    // GPT-BigCode derives its num_key_value_heads from this.
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
  const bool is_joint = place.is_between_parts && !absl::EndsWith(config.model_type(), "qformer");
  if (config.outer().is_object() && is_joint) {
    return absl::InvalidArgumentError(absl::StrCat("the layer at '", std::string(prefix.substr(0, 200)),
                                                   "' joins the parts of the model, and what it does is not known"));
  }
  const bool crosses = place.is_cross && config.Reads("cross_head_dim");
  for (const char* const key : {crosses ? "cross_head_dim" : "head_dim", "d_kv", "kv_channels"}) {
    const auto dim = config.Integer({key});
    if (dim && head_dim > 0 && *dim != head_dim) {
      config.Fail(key,
                  absl::StrCat("is ", *dim, ", but the weights and the number of heads give each head ", head_dim));
    }
  }
  if (!caller.causal) SetCausality(config, place, layer);
  RefuseEncoder(config, place);
  const bool sliding = !place.is_cross && (!caller.window || !caller.rotary) && IsSliding(config, place);
  const Causality mask = caller.causal ? *caller.causal : layer.causal.value.value_or(Causality::kNone);
  if (sliding && !caller.window) SetWindow(config, mask, layer);
  if (!caller.rotary) SetRotary(config, place, head_dim, sliding, layer);
  if (!caller.scale) SetScale(config, place, head_dim, layer);
  if (config.Reads("attn_logit_softcapping") && !caller.softcap) {
    if (const auto softcap = config.Number({"attn_logit_softcapping"})) {
      layer.softcap.Set(*softcap, config.Origin("attn_logit_softcapping"));
    }
  }
  SetAlibi(config, num_heads, caller, layer);
  SetNorms(config, layer);
  RefuseNorms(config, caller);
  if (config.HasTrait(kRelativeBias) && !place.is_cross) {
    layer.notes.push_back(
        absl::StrCat(config.model_type(), " models add a bias by distance to the scores: send it as options.bias"));
  }
  // The rest is as the model's code has it.
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
