// What is known about how an attention layer uses its weights, as plain values, each with where it comes from; and
// errors about one of them.
#ifndef ATTEND_FORMATS_LAYERS_LAYER_SETTINGS_H_
#define ATTEND_FORMATS_LAYERS_LAYER_SETTINGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace attend::formats {

enum class Causality : std::uint8_t { kNone, kBottomRight, kTopLeft };
enum class RotaryForm : std::uint8_t { kNone, kHalf, kInterleaved };
enum class NormKind : std::uint8_t { kRms, kLayer };

// Llama 3.1's scaling of rotary frequencies, see Llama3Scaling in layer_service.proto.
struct Llama3 {
  double factor = 0;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  std::int64_t original_context_length = 0;
};

// See RotaryEmbedding in layer_service.proto. kNone: the layer has none, and somebody says so.
struct Rotary {
  RotaryForm form = RotaryForm::kHalf;
  double base = 10000;
  std::int64_t dim = 0;  // Of a head; 0: all of it.
  std::optional<double> linear_factor;
  std::optional<Llama3> llama3;
  std::optional<double> dynamic_factor;
  std::vector<double> frequencies;           // In place of base and scaling; dim / 2 of them.
  std::vector<double> long_frequencies;      // In place of those for texts of more than `original_context_length`.
  std::int64_t original_context_length = 0;  // In tokens; 0: the same for every length.
  double attention_factor = 1;               // On each turned element.
};

// One value and, in a few words, its origin: `config.json: rope_theta`, `model type llama`, `tensor self_attn.sinks`.
template <typename T>
struct Setting {
  std::optional<T> value;
  std::string origin;

  void Set(T is, std::string says) {
    value = std::move(is);
    origin = std::move(says);
  }
  explicit operator bool() const { return value.has_value(); }
  const T& operator*() const { return *value; }
  const T* operator->() const { return &*value; }
};

// A field without a value has the default that LayerConfig states in layer_service.proto; its origin is who says so, if
// anybody does.
struct LayerSettings {
  Setting<std::int64_t> num_heads;
  Setting<std::int64_t> num_kv_heads;
  Setting<Causality> causal;
  Setting<std::int64_t> window_left;
  Setting<std::int64_t> window_right;
  Setting<Rotary> rotary;
  Setting<double> scale;
  Setting<double> softcap;
  Setting<NormKind> norm_kind;
  Setting<double> norm_epsilon;
  Setting<bool> norm_adds_one;
  Setting<bool> norm_after_rotary;
  Setting<std::vector<float>> alibi_slopes;  // One for each query head.
  Setting<std::vector<float>> sinks;         // Likewise.
  std::vector<std::string> notes;            // Sentences about what else the model does.
};

// What the caller sets, which nothing in a file is asked about.
struct CallerSettings {
  std::int64_t num_heads = 0;  // 0: not set.
  std::int64_t num_kv_heads = 0;
  std::optional<Causality> causal;
  bool window = false;
  bool rotary = false;
  bool scale = false;
  bool softcap = false;
  bool norms = false;  // Kind, epsilon or what is added.
  bool alibi_slopes = false;
  bool sinks = false;
  std::vector<std::string> ignored_tensors;  // Below the attention module, without its name.
};

// INVALID_ARGUMENT about `field` of a layer's configuration (`config.num_heads`), which programs can read. Pure.
absl::Status FieldError(std::string_view field, std::string_view message);

// The field that FieldError attached to `status`; empty when there is none. Pure.
std::string FieldOf(const absl::Status& status);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_LAYER_SETTINGS_H_
