// Between LayerSettings and messages with the fields of attend.v1.LayerConfig: templates, because formats knows no
// protocol.
#ifndef ATTEND_FORMATS_LAYERS_LAYER_MESSAGE_H_
#define ATTEND_FORMATS_LAYERS_LAYER_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// Bytes of the configuration in a file's metadata, as a message: a layer keeps it, also what it ignores of it.
inline constexpr std::size_t kMaxFileConfigBytes = 64 << 10;

// Tensors that a configuration leaves out; an honest one names a few. Each name takes far more memory than its bytes.
inline constexpr int kMaxIgnoredTensors = 1024;

// The mode of a CausalMode's number. Nothing for 0; a number that is no mode is refused where options are checked.
inline std::optional<Causality> CausalityOf(int number) {
  if (number == 0) return std::nullopt;
  return number == 3 ? Causality::kNone : number == 2 ? Causality::kTopLeft : Causality::kBottomRight;
}

// What `config` sets. Pure.
template <typename LayerConfig>
CallerSettings CallerSettingsOf(const LayerConfig& config) {
  const auto& options = config.options();
  CallerSettings caller;
  caller.num_heads = config.num_heads();
  caller.num_kv_heads = config.num_kv_heads();
  caller.causal = CausalityOf(static_cast<int>(options.causal()));
  caller.window = options.has_sliding_window_left() || options.has_sliding_window_right();
  caller.rotary = config.has_rotary_embedding();
  caller.scale = options.has_scale();
  caller.softcap = options.has_softcap();
  caller.norms = config.norm_kind() != 0 || config.has_norm_epsilon();
  caller.alibi_slopes = options.has_alibi_slopes();
  caller.sinks = options.has_sinks();
  caller.ignored_tensors.assign(config.ignored_tensors().begin(), config.ignored_tensors().end());
  return caller;
}

// Writes a vector of floats as a FLOAT32 tensor of one axis.
template <typename Tensor>
void PutFloats(const std::vector<float>& floats, Tensor* tensor) {
  tensor->set_data_type(static_cast<decltype(tensor->data_type())>(1));
  tensor->add_shape(static_cast<std::int64_t>(floats.size()));
  tensor->mutable_values()->Assign(floats.begin(), floats.end());
}

// Writes what is known of the options to an AttentionOptions.
template <typename AttentionOptions>
void PutOptions(const LayerSettings& layer, AttentionOptions* options) {
  using Causal = decltype(options->causal());
  if (layer.causal) {
    const int numbers[] = {3, 1, 2};  // Of CausalMode, by Causality.
    options->set_causal(static_cast<Causal>(numbers[static_cast<std::size_t>(*layer.causal)]));
  }
  if (layer.window_left) options->set_sliding_window_left(*layer.window_left);
  if (layer.window_right) options->set_sliding_window_right(*layer.window_right);
  if (layer.scale) options->set_scale(*layer.scale);
  if (layer.softcap) options->set_softcap(*layer.softcap);
  if (layer.alibi_slopes) PutFloats(*layer.alibi_slopes, options->mutable_alibi_slopes());
  if (layer.sinks) PutFloats(*layer.sinks, options->mutable_sinks());
}

template <typename RotaryEmbedding>
void PutRotary(const Rotary& from, RotaryEmbedding* to) {
  const int numbers[] = {3, 1, 2};  // Of the protocol's RotaryForm, by this one's.
  to->set_form(static_cast<decltype(to->form())>(numbers[static_cast<std::size_t>(from.form)]));
  if (from.form == RotaryForm::kNone) return;
  to->set_dim(static_cast<std::int32_t>(from.dim));
  if (from.frequencies.empty()) to->set_base(from.base);
  to->mutable_frequencies()->Assign(from.frequencies.begin(), from.frequencies.end());
  to->mutable_long_frequencies()->Assign(from.long_frequencies.begin(), from.long_frequencies.end());
  to->set_original_context_length(from.original_context_length);
  if (from.dynamic_factor) to->set_dynamic_factor(*from.dynamic_factor);
  if (from.attention_factor != 1) to->set_attention_factor(from.attention_factor);
  if (from.linear_factor) to->set_linear_factor(*from.linear_factor);
  if (!from.llama3) return;
  auto* const llama3 = to->mutable_llama3();
  llama3->set_factor(from.llama3->factor);
  llama3->set_low_freq_factor(from.llama3->low_freq_factor);
  llama3->set_high_freq_factor(from.llama3->high_freq_factor);
  llama3->set_original_context_length(from.llama3->original_context_length);
}

// Writes everything that is known to a LayerConfig.
template <typename LayerConfig>
void PutSettings(const LayerSettings& layer, LayerConfig* config) {
  if (layer.num_heads) config->set_num_heads(static_cast<std::int32_t>(*layer.num_heads));
  if (layer.num_kv_heads) config->set_num_kv_heads(static_cast<std::int32_t>(*layer.num_kv_heads));
  if (layer.rotary) PutRotary(*layer.rotary, config->mutable_rotary_embedding());
  if (layer.norm_kind) {
    config->set_norm_kind(static_cast<decltype(config->norm_kind())>(*layer.norm_kind == NormKind::kRms ? 1 : 2));
  }
  if (layer.norm_epsilon) config->set_norm_epsilon(*layer.norm_epsilon);
  if (layer.norm_adds_one) config->set_norm_adds_one(*layer.norm_adds_one);
  if (layer.norm_after_rotary) config->set_norm_after_rotary(*layer.norm_after_rotary);
  PutOptions(layer, config->mutable_options());
}

// `base`, overridden field by field by `over`, also within `options`. A rotary embedding and a tensor are replaced as a
// whole. Pure.
template <typename LayerConfig>
LayerConfig MergeLayerConfig(const LayerConfig& base, const LayerConfig& over) {
  LayerConfig merged = base;
  // MergeFrom would mix two rotary embeddings or two tensors.
  if (over.has_rotary_embedding()) merged.clear_rotary_embedding();
  std::vector<decltype(over.options().GetDescriptor()->field(0))> options;
  over.options().GetReflection()->ListFields(over.options(), &options);
  for (const auto* const option : options) {
    if (option->message_type() != nullptr)
      merged.options().GetReflection()->ClearField(merged.mutable_options(), option);
  }
  merged.MergeFrom(over);
  return merged;
}

// Refuses more than kMaxIgnoredTensors. Errors: FieldError. Pure.
template <typename LayerConfig>
absl::Status CheckIgnoredTensors(const LayerConfig& config) {
  if (config.ignored_tensors_size() <= kMaxIgnoredTensors) return absl::OkStatus();
  return FieldError("config.ignored_tensors", absl::StrCat("config.ignored_tensors has ", config.ignored_tensors_size(),
                                                           " names; at most ", kMaxIgnoredTensors, " are read"));
}

// Refuses more than kMaxFileConfigBytes and what CheckIgnoredTensors refuses. Errors: INVALID_ARGUMENT. Pure.
template <typename LayerConfig>
absl::Status CheckFileConfig(const LayerConfig& config) {
  if (const std::size_t bytes = config.ByteSizeLong(); bytes > kMaxFileConfigBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("it has ", bytes, " bytes as a message; at most ", kMaxFileConfigBytes, " are read"));
  }
  return CheckIgnoredTensors(config);
}

// What the `__metadata__` of a .safetensors file says about a layer:
//   num_heads, num_kv_heads   decimal numbers
//   causal                    `bottom_right`, `top_left` or `none`
//   attend.layer_config       a LayerConfig in JSON, which `parse` reads; the keys above go before it
// `is_stored`: a server has served the layer already (LayerRequest), however much its file says. Errors:
// INVALID_ARGUMENT naming the key.
template <typename LayerConfig, typename Parse>
absl::StatusOr<LayerConfig> LayerConfigOfMetadata(const std::map<std::string, std::string>& metadata,
                                                  const Parse& parse, bool is_stored = false) {
  const auto invalid = [](const std::string& key, const std::string& value, const char* expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file's metadata '", key, "' is '", value.substr(0, 64), "'; it must be ", expected));
  };
  LayerConfig config;
  if (const auto json = metadata.find("attend.layer_config"); json != metadata.end()) {
    absl::StatusOr<LayerConfig> parsed = parse(json->second);
    const absl::Status status = !parsed.ok() ? parsed.status()
                                : is_stored  ? absl::OkStatus()
                                             : CheckFileConfig(*parsed);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("the file's metadata 'attend.layer_config': ", status.message()));
    }
    config = *std::move(parsed);
  }
  for (const char* const key : {"num_heads", "num_kv_heads"}) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) continue;
    std::int32_t number = 0;
    if (!absl::SimpleAtoi(found->second, &number) || number < 1) {
      return invalid(key, found->second, "a number of at least 1");
    }
    key == std::string("num_heads") ? config.set_num_heads(number) : config.set_num_kv_heads(number);
  }
  if (const auto causal = metadata.find("causal"); causal != metadata.end()) {
    const std::pair<const char*, int> modes[] = {{"none", 3}, {"bottom_right", 1}, {"top_left", 2}};
    auto* const options = config.mutable_options();
    bool is_known = false;
    for (const auto& [name, number] : modes) {
      if (causal->second != name) continue;
      options->set_causal(static_cast<decltype(options->causal())>(number));
      is_known = true;
    }
    if (!is_known) return invalid("causal", causal->second, "bottom_right, top_left or none");
  }
  return config;
}

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_LAYER_MESSAGE_H_
