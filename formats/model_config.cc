#include "formats/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/json_text.h"

namespace attend::formats {
namespace {

constexpr std::int64_t kMaxInteger = std::numeric_limits<std::int32_t>::max();

// Where the parts of a model of several are; the first that is there holds the rest.
constexpr const char* kTextParts[] = {"text_config", "llm_config", "language_config"};

}  // namespace

const nlohmann::json* ModelConfig::Find(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<ModelConfig> ModelConfig::Parse(std::string_view text, std::string_view prefix) {
  nlohmann::json json = ParseJson(text);
  if (!json.is_object()) return absl::InvalidArgumentError("it is not a JSON object");
  const bool is_vision = absl::StrContains({prefix.data(), prefix.size()}, "vision");
  const nlohmann::json* part = is_vision ? Find(json, "vision_config") : nullptr;
  for (const char* const key : kTextParts) {
    if (part == nullptr && !is_vision) part = Find(json, key);
  }
  ModelConfig config(part != nullptr && part->is_object() ? *part : json);
  config.model_type_ = config.Text("model_type");
  return config;
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

ModelConfig ModelConfig::Object(const char* key) const {
  const nlohmann::json* const value = Find(key);
  return ModelConfig(value != nullptr && value->is_object() ? *value : nlohmann::json::object());
}

bool ModelConfig::IsModel(std::initializer_list<std::string_view> types) const {
  return std::find(types.begin(), types.end(), model_type_) != types.end();
}

void ModelConfig::Fail(const std::string& key, const std::string& why) {
  status_.Update(absl::InvalidArgumentError(absl::StrCat("'", key, "' ", why)));
}

}  // namespace attend::formats
