#include "server/layers/layer_config.h"

#include <google/protobuf/util/json_util.h>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

constexpr char kMetadataConfig[] = "attend.layer_config";

absl::Status InvalidMetadata(const std::string& key, const std::string& value, const std::string& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("the file's metadata '", key, "' is '", value.substr(0, 64), "'; it must be ", expected));
}

absl::StatusOr<v1::CausalMode> CausalOfMetadata(const std::string& value) {
  if (value == "bottom_right") return v1::CAUSAL_MODE_BOTTOM_RIGHT;
  if (value == "top_left") return v1::CAUSAL_MODE_TOP_LEFT;
  if (value == "none") return v1::CAUSAL_MODE_UNSPECIFIED;
  return InvalidMetadata("causal", value, "bottom_right, top_left or none");
}

}  // namespace

v1::LayerConfig MergeLayerConfig(const v1::LayerConfig& base, const v1::LayerConfig& over) {
  v1::LayerConfig merged = base;
  // MergeFrom would mix two rotary embeddings or two tensors into a third that nobody meant.
  if (over.has_rotary_embedding()) merged.clear_rotary_embedding();
  if (over.options().has_alibi_slopes()) merged.mutable_options()->clear_alibi_slopes();
  if (over.options().has_sinks()) merged.mutable_options()->clear_sinks();
  merged.MergeFrom(over);
  return merged;
}

absl::StatusOr<v1::LayerConfig> ParseLayerConfig(std::string_view json) {
  v1::LayerConfig config;
  const auto status = google::protobuf::util::JsonStringToMessage({json.data(), json.size()}, &config);
  if (status.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrCat("it is not a LayerConfig in JSON: ", std::string(status.message().data(), status.message().size())));
}

absl::StatusOr<v1::LayerConfig> LayerConfigOfMetadata(const std::map<std::string, std::string>& metadata) {
  v1::LayerConfig config;
  if (const auto json = metadata.find(kMetadataConfig); json != metadata.end()) {
    absl::StatusOr<v1::LayerConfig> parsed = ParseLayerConfig(json->second);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the file's metadata '", kMetadataConfig, "': ", parsed.status().message()));
    }
    config = *std::move(parsed);
  }
  for (const char* const key : {"num_heads", "num_kv_heads"}) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) continue;
    std::int32_t number = 0;
    if (!absl::SimpleAtoi(found->second, &number) || number < 1) {
      return InvalidMetadata(key, found->second, "a number of at least 1");
    }
    std::string_view(key) == "num_heads" ? config.set_num_heads(number) : config.set_num_kv_heads(number);
  }
  if (const auto causal = metadata.find("causal"); causal != metadata.end()) {
    const absl::StatusOr<v1::CausalMode> mode = CausalOfMetadata(causal->second);
    if (!mode.ok()) return mode.status();
    config.mutable_options()->set_causal(*mode);
  }
  return config;
}

}  // namespace attend::server
