// What a config.json says of a layer, for tests: the settings, or the sentence that refuses it.
#ifndef ATTEND_TESTS_FORMATS_PARSED_CONFIG_H_
#define ATTEND_TESTS_FORMATS_PARSED_CONFIG_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "formats/hugging_face/hugging_face_config.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// Fails the test when the configuration is refused.
inline LayerSettings Parse(const std::string& json, const std::string& prefix = "model.layers.0.",
                           std::int64_t head_dim = 0) {
  const absl::StatusOr<LayerSettings> config = ParseHuggingFaceConfig(json, prefix, {}, head_dim);
  EXPECT_TRUE(config.ok()) << json << ": " << config.status();
  return config.ok() ? *config : LayerSettings();
}

inline std::string Refusal(const std::string& json, const std::string& prefix = "", const CallerSettings& caller = {},
                           std::int64_t head_dim = 0) {
  return std::string(ParseHuggingFaceConfig(json, prefix, caller, head_dim).status().message());
}

// -1: no window.
inline std::int64_t Left(const LayerSettings& layer) { return layer.window_left.value.value_or(-1); }

inline bool Turns(const LayerSettings& layer) { return layer.rotary && (*layer.rotary).form != RotaryForm::kNone; }

}  // namespace attend::formats

#endif  // ATTEND_TESTS_FORMATS_PARSED_CONFIG_H_
