// A model's config.json as a typed dictionary that knows transformers' defaults for absent keys. It keeps the first
// error: reading continues after it, and status() reports it at the end.
#ifndef ATTEND_FORMATS_HUGGING_FACE_MODEL_CONFIG_H_
#define ATTEND_FORMATS_HUGGING_FACE_MODEL_CONFIG_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/hugging_face/model_rules.h"
#include "formats/layers/layer_place.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// Thread-compatible.
class ModelConfig {
 public:
  // The part of the model that `prefix` is in: of a model with several the one for images if the prefix says `vision`,
  // `visual` or `image`, else the one for text. Errors: INVALID_ARGUMENT when it is not a JSON object or has no
  // `model_type`.
  static absl::StatusOr<ModelConfig> Parse(std::string_view text, std::string_view prefix);

  // The first of `keys` that is there and not null, in the file or, if the file is silent, in the rules. A value of
  // another kind or out of range sets the status; so does null where the rules have a number or "?", unless the type's
  // code is known to read it for something.
  std::optional<std::int64_t> Integer(std::initializer_list<const char*> keys);
  std::optional<double> Number(std::initializer_list<const char*> keys);
  std::optional<bool> Boolean(const char* key);
  std::string Text(const char* key);
  // Null when there is none.
  const nlohmann::json* Find(const char* key);
  // The object at `key` as a dictionary of its own without rules, empty when there is none; its errors are not this
  // one's.
  ModelConfig Object(const char* key);

  bool empty() const { return json_.empty(); }
  // Whether the file itself has it, also as null.
  bool Has(const char* key) const { return json_.contains(key); }
  // Whether the file itself has it, and not as null.
  bool Says(const char* key) const { return Has(key) && !json_.at(key).is_null(); }
  // Whether the rules say that this type of model reads it.
  bool Reads(const char* key) const { return defaults_.contains(key); }
  // What the rules say is the number at `key`, whatever the file says.
  std::optional<double> Standard(const char* key) const;
  bool HasTrait(std::uint32_t trait) const { return rules_ != nullptr && (rules_->traits & trait) != 0; }
  // Where the value of `key` comes from, in a few words: `config.json: rope_theta`.
  std::string Origin(const char* key) const;

  const nlohmann::json& json() const { return json_; }
  const nlohmann::json& outer() const { return outer_; }       // What surrounds the part; null when it is the whole.
  std::string_view joint_keys() const { return joint_keys_; }  // CompositeRules::joint_keys of what surrounds the part.
  const std::string& model_type() const { return model_type_; }
  const ModelRules* rules() const { return rules_; }  // Null when the type is not known.

  void Fail(const std::string& key, const std::string& why);
  const absl::Status& status() const { return status_; }
  void Update(const absl::Status& status) { status_.Update(status); }

 private:
  explicit ModelConfig(nlohmann::json json) : json_(std::move(json)) {}

  nlohmann::json json_;
  nlohmann::json defaults_ = nlohmann::json::object();
  nlohmann::json outer_;
  std::string_view joint_keys_;
  std::string model_type_;
  const ModelRules* rules_ = nullptr;
  absl::Status status_;
};

// The origin of what only the code of the model says: `model type llama`.
std::string OfType(const ModelConfig& config);

// Whether the layer sees a window only, by the rules of its type. Mistakes and what is not known set the status of
// `config`, here and below.
bool IsSliding(ModelConfig& config, const LayerPlace& place);

// Sets the window of a layer that slides and whose mask is `causal`, the caller's or the file's.
void SetWindow(ModelConfig& config, Causality causal, LayerSettings& layer);

// The rotary embedding of a layer of a model that has them, whose heads have `head_dim` elements (0: not known).
// `is_sliding` says whether the layer sees a window only: Gemma 3 and ModernBERT turn such layers with another base.
// `base`, if given, is that of this layer, whatever the file says of all.
// Mistakes and what is not known set the status of `config`.
Setting<Rotary> RotaryOf(ModelConfig& config, std::int64_t head_dim, bool is_sliding,
                         std::optional<double> base = std::nullopt);

// Sets the ALiBi slopes of a layer with `heads` query heads, unless `caller` does, and the scale of MPT's layers, which
// the same dictionary holds. Mistakes and what is not supported set the status of `config`.
void SetAlibi(ModelConfig& config, std::int64_t heads, const CallerSettings& caller, LayerSettings& layer);

// Refuses a key that may be about attention by its name, has a value, and is neither applied nor known to change
// nothing. Of a type whose rules are not known no key is applied; what `caller` sets is settled. Pure. Errors:
// INVALID_ARGUMENT naming the key.
absl::Status CheckModelKeys(const ModelConfig& config, const CallerSettings& caller);

// The same of the dictionary `inner`, which the model has under `name`: `known` are the keys, separated by spaces, that
// are applied, looked at or known to change nothing. One that is false is not set. Pure. Errors: as above.
absl::Status CheckInnerKeys(const ModelConfig& inner, absl::string_view name, absl::string_view known,
                            const CallerSettings& caller);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_MODEL_CONFIG_H_
