#include "formats/hugging_face/model_config.h"

#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/files/json_text.h"

namespace attend::formats {
namespace {

constexpr std::int64_t kMaxInteger = std::numeric_limits<std::int32_t>::max();

// Where the parts of a model of several are.
constexpr const char* kTextParts[] = {"text_config", "llm_config", "language_config"};
constexpr const char* kVisionParts[] = {"vision_config"};
constexpr const char* kVisionWords[] = {"vision", "visual", "image"};

// Of the file alone; null for null.
const nlohmann::json* FindIn(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

std::string TypeOf(const nlohmann::json& json) {
  const nlohmann::json* const type = FindIn(json, "model_type");
  const auto* const text = type == nullptr ? nullptr : type->get_ptr<const std::string*>();
  return text == nullptr ? "" : *text;
}

bool IsVision(std::string_view prefix) {
  for (const char* const word : kVisionWords) {
    if (absl::StrContains({prefix.data(), prefix.size()}, word)) return true;
  }
  return false;
}

// The part's own configuration; null when it is not in one of its own.
const nlohmann::json* PartOf(const nlohmann::json& json, bool is_vision) {
  for (const char* const key : kVisionParts) {
    if (const auto* const part = FindIn(json, key); is_vision && part != nullptr && part->is_object()) return part;
  }
  for (const char* const key : kTextParts) {
    if (const auto* const part = FindIn(json, key); !is_vision && part != nullptr && part->is_object()) return part;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::Parse(std::string_view text, std::string_view prefix) {
  absl::StatusOr<nlohmann::json> json = ParseJsonObject(text);
  if (!json.ok()) return json.status();
  if (const auto* const type = FindIn(*json, "model_type"); type != nullptr && !type->is_string()) {
    return absl::InvalidArgumentError("'model_type' is not a string");
  }
  const std::string type = TypeOf(*json);
  const CompositeRules* const composite = FindCompositeRules(type);
  const bool is_vision = IsVision(prefix);
  const bool has_rules = composite == nullptr && FindModelRules(type) != nullptr;
  const nlohmann::json* const part = has_rules ? nullptr : PartOf(*json, is_vision);
  ModelConfig config(part == nullptr ? *json : *part);
  if (part != nullptr) config.outer_ = *json;
  config.model_type_ = TypeOf(config.json_);
  // Older files of a model of several parts have the text's keys beside the part for images.
  const bool says_nothing = config.model_type_.empty() || config.model_type_ == type;
  if (composite != nullptr && says_nothing) config.model_type_ = is_vision ? composite->vision : composite->text;
  config.rules_ = FindModelRules(config.model_type_);
  if (config.rules_ != nullptr) config.defaults_ = nlohmann::json::parse(config.rules_->keys);
  return config;
}

const nlohmann::json* ModelConfig::Find(const char* key) {
  if (json_.contains(key)) return FindIn(json_, key);
  const nlohmann::json* const standard = FindIn(defaults_, key);
  if (standard == nullptr || *standard != "?") return standard;
  Fail(key, absl::StrCat("is missing, and what it stands for depends on the version of transformers that made the ",
                         model_type_, " model; add it"));
  return nullptr;
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

}  // namespace attend::formats
