// A config.json as a typed dictionary, with an error that sticks: reading goes on after the first mistake, which is
// reported at the end.
#ifndef ATTEND_FORMATS_MODEL_CONFIG_H_
#define ATTEND_FORMATS_MODEL_CONFIG_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::formats {

// Thread-compatible.
class ModelConfig {
 public:
  // The part of the model that `prefix` is in: `vision_config` for the tower of images, `text_config` where the rest is
  // in one. Errors: INVALID_ARGUMENT when it is not a JSON object.
  static absl::StatusOr<ModelConfig> Parse(std::string_view text, std::string_view prefix);

  // The first of `keys` that is there and not null. A value of another kind or out of range sets the status.
  std::optional<std::int64_t> Integer(std::initializer_list<const char*> keys);
  std::optional<double> Number(std::initializer_list<const char*> keys);
  std::optional<bool> Boolean(const char* key);
  std::string Text(const char* key);

  // Null when there is none.
  const nlohmann::json* Find(const char* key) const { return Find(json_, key); }
  // The object at `key` as a dictionary of its own, empty when there is none; its errors are not this one's.
  ModelConfig Object(const char* key) const;
  bool empty() const { return json_.empty(); }

  const std::string& model_type() const { return model_type_; }
  bool IsModel(std::initializer_list<std::string_view> types) const;

  void Fail(const std::string& key, const std::string& why);
  const absl::Status& status() const { return status_; }
  void Update(const absl::Status& status) { status_.Update(status); }

 private:
  explicit ModelConfig(nlohmann::json json) : json_(std::move(json)) {}
  static const nlohmann::json* Find(const nlohmann::json& json, const char* key);

  nlohmann::json json_;
  std::string model_type_;
  absl::Status status_;
};

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_MODEL_CONFIG_H_
