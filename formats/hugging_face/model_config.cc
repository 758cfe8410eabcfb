#include "formats/hugging_face/model_config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/files/json_text.h"

namespace attend::formats {
namespace {

constexpr int kMaxDepth = 3;  // Of parts within parts.
constexpr std::int64_t kMaxInteger = std::numeric_limits<std::int32_t>::max();

// BridgeTower's layers that see both parts are made as the text's are.
constexpr const char* kBetween = "cross_modal";

// The type of FSMT's "decoder", which has a vocabulary and nothing of the decoder's layers.
constexpr const char* kVocabularyAlone = "fsmt_decoder";

// Where the configuration of a part is, and the words of which one in a prefix means the part.
struct PartPlace {
  std::initializer_list<const char*> keys;
  std::initializer_list<const char*> words;
};
const PartPlace kParts[] = {
    {{"text_config"}, {kBetween}},
    {{"vlm_config"}, {"vlm"}},
    {{"thinker_config"}, {"thinker"}},
    {{"multimodal_config"}, {"multimodal"}},
    {{"protein_encoder_config"}, {"protein_encoder"}},
    {{"vision_config", "image_config"}, {"vision", "visual", "image"}},
    {{"qformer_config"}, {"qformer"}},
    {{"audio_config", "audio_encoder"}, {"audio"}},
    {{"detr_encoder_config"}, {"detr_encoder"}},
    {{"detr_decoder_config"}, {"detr_decoder"}},
    {{"geometry_encoder_config"}, {"geometry_encoder"}},
    {{"mask_decoder_config"}, {"mask_decoder"}},
    {{"decoder_config", "decoder"}, {"decoder"}},
    {{"encoder_config", "encoder"}, {"encoder"}},
};

// Keys of which null says something to the code that reads them, whatever they are when missing: no cap, no window, a
// factor of 1, as many heads as the queries have, a base or a length from elsewhere. Where the code computes with any
// other number, null fails.
constexpr std::string_view kMayBeNull[] = {"attn_logit_softcapping", "key_multiplier",
                                           "local_rope_theta",       "num_attention_heads",
                                           "num_key_value_heads",    "original_max_position_embeddings",
                                           "sliding_window"};

constexpr const char* kTextParts[] = {"text_config", "llm_config", "language_config"};
constexpr const char* kVisionWords[] = {"vision", "visual", "image"};

// Of the file alone; null for null.
const nlohmann::json* FindIn(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

bool MayBeNull(std::string_view key, const nlohmann::json& standard) {
  if (!standard.is_number() && standard != "?") return true;
  return std::find(std::begin(kMayBeNull), std::end(kMayBeNull), key) != std::end(kMayBeNull);
}

std::string TypeOf(const nlohmann::json& json) {
  const nlohmann::json* const type = FindIn(json, "model_type");
  const auto* const text = type == nullptr ? nullptr : type->get_ptr<const std::string*>();
  return text == nullptr ? "" : *text;
}

bool IsVision(std::string_view prefix) {
  if (absl::StrContains({prefix.data(), prefix.size()}, kBetween)) return false;
  for (const char* const word : kVisionWords) {
    if (absl::StrContains({prefix.data(), prefix.size()}, word)) return true;
  }
  return false;
}

const nlohmann::json* ObjectAt(const nlohmann::json& json, const char* key) {
  const auto* const part = FindIn(json, key);
  return part != nullptr && part->is_object() ? part : nullptr;
}

// The part that a word of the prefix means; null when it means none that the file has. The first word decides: that of
// the part, not of what is within it.
const nlohmann::json* NamedPart(const nlohmann::json& json, std::string_view prefix) {
  const nlohmann::json* named = nullptr;
  std::size_t first = std::string_view::npos;
  for (const PartPlace& place : kParts) {
    for (const char* const word : place.words) {
      const std::size_t at = prefix.find(word);
      if (at >= first) continue;
      for (const char* const key : place.keys) {
        const nlohmann::json* const part = ObjectAt(json, key);
        if (part == nullptr || TypeOf(*part) == kVocabularyAlone) continue;
        named = part;
        first = at;
        break;
      }
    }
  }
  return named;
}

const nlohmann::json* TextPart(const nlohmann::json& json) {
  for (const char* const key : kTextParts) {
    if (const auto* const part = ObjectAt(json, key); part != nullptr) return part;
  }
  return nullptr;
}

// The part's own configuration; null when the prefix is not in one of its own.
const nlohmann::json* PartOf(const nlohmann::json& json, std::string_view prefix) {
  const nlohmann::json* const named = NamedPart(json, prefix);
  const bool has_rules = FindCompositeRules(TypeOf(json)) == nullptr && FindModelRules(TypeOf(json)) != nullptr;
  return named != nullptr || has_rules || IsVision(prefix) ? named : TextPart(json);
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::Parse(std::string_view text, std::string_view prefix) {
  absl::StatusOr<nlohmann::json> json = ParseJsonObject(text);
  if (!json.ok()) return json.status();
  if (const auto* const type = FindIn(*json, "model_type"); type != nullptr && !type->is_string()) {
    return absl::InvalidArgumentError("'model_type' is not a string");
  }
  ModelConfig config(*std::move(json));
  std::string around;  // The model type of what the part is within.
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    const nlohmann::json* const part = PartOf(config.json_, prefix);
    if (part == nullptr) break;
    around = TypeOf(config.json_);
    for (const auto& [key, value] : config.json_.items()) {
      if (!value.is_null()) config.outer_[key] = value;
    }
    config.json_ = nlohmann::json(*part);
  }
  config.model_type_ = TypeOf(config.json_);
  // Older files of a model of several parts have the text's keys beside the part for images.
  if (around.empty()) around = config.model_type_;
  const CompositeRules* const composite = FindCompositeRules(around);
  const bool says_nothing = config.model_type_.empty() || config.model_type_ == around;
  if (composite != nullptr && says_nothing) {
    config.model_type_ = IsVision(prefix) ? composite->vision : composite->text;
  }
  if (composite != nullptr) config.joint_keys_ = composite->joint_keys;
  config.rules_ = FindModelRules(config.model_type_);
  if (config.rules_ != nullptr) config.defaults_ = nlohmann::json::parse(config.rules_->keys);
  // Of a part that the file does not have, transformers does not always make what the part's type is by default.
  if (composite != nullptr && config.outer_.is_null()) config.defaults_.erase("num_attention_heads");
  return config;
}

const nlohmann::json* ModelConfig::Find(const char* key) {
  const nlohmann::json* const said = FindIn(json_, key);
  const nlohmann::json* const standard = FindIn(defaults_, key);
  const bool is_open = standard != nullptr && *standard == "?";
  // An empty dictionary is none to transformers 5.
  const bool says_nothing = said == nullptr || (is_open && said->is_object() && said->empty());
  if (standard == nullptr || !says_nothing || (Has(key) && MayBeNull(key, *standard))) return said;
  if (is_open) {
    const char* const what = said != nullptr ? "empty" : Has(key) ? "null" : "missing";
    Fail(key,
         absl::StrCat("is ", what, ", and what it stands for depends on the version of transformers that made the ",
                      model_type_, " model; add it"));
    return nullptr;
  }
  if (!Has(key)) return standard;
  Fail(key, absl::StrCat("is null, and the code of ", model_type_,
                         " models computes with a number. Write it, or leave the key out"));
  return nullptr;
}

std::optional<double> ModelConfig::Standard(const char* key) const {
  const nlohmann::json* const standard = FindIn(defaults_, key);
  return standard != nullptr && standard->is_number() ? std::optional<double>(standard->get<double>()) : std::nullopt;
}

std::string ModelConfig::Origin(const char* key) const {
  return json_.contains(key) ? absl::StrCat("config.json: ", key) : absl::StrCat("model type ", model_type_, ": ", key);
}

std::optional<std::int64_t> ModelConfig::Integer(std::initializer_list<const char*> keys) {
  for (const char* const key : keys) {
    const nlohmann::json* const value = Find(key);
    if (value == nullptr) continue;
    const auto* const number = value->get_ptr<const nlohmann::json::number_integer_t*>();
    if (number != nullptr && *number >= 0 && *number <= kMaxInteger) return *number;
    Fail(key, "is not a whole number that makes sense");
    return std::nullopt;
  }
  return std::nullopt;
}

std::optional<double> ModelConfig::Number(std::initializer_list<const char*> keys) {
  for (const char* const key : keys) {
    const nlohmann::json* const value = Find(key);
    if (value == nullptr) continue;
    if (value->is_number() && std::isfinite(value->get<double>())) return value->get<double>();
    Fail(key, "is not a number");
    return std::nullopt;
  }
  return std::nullopt;
}

std::optional<bool> ModelConfig::Boolean(const char* key) {
  const nlohmann::json* const value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const bool* const truth = value->get_ptr<const bool*>(); truth != nullptr) return *truth;
  Fail(key, "is neither true nor false");
  return std::nullopt;
}

std::string ModelConfig::Text(const char* key) {
  const nlohmann::json* const value = Find(key);
  if (value == nullptr) return "";
  if (const auto* const text = value->get_ptr<const std::string*>(); text != nullptr) return *text;
  Fail(key, "is not a string");
  return "";
}

ModelConfig ModelConfig::Object(const char* key) {
  const nlohmann::json* const value = Find(key);
  if (value != nullptr && !value->is_object()) Fail(key, "is not an object");
  ModelConfig object(value != nullptr && value->is_object() ? *value : nlohmann::json::object());
  object.model_type_ = model_type_;
  return object;
}

void ModelConfig::Fail(const std::string& key, const std::string& why) {
  status_.Update(absl::InvalidArgumentError(absl::StrCat("'", key, "' ", why)));
}

std::string OfType(const ModelConfig& config) { return absl::StrCat("model type ", config.model_type()); }

}  // namespace attend::formats
