#include "server/layers/layer_config.h"

#include <google/protobuf/util/json_util.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attend::server {

absl::StatusOr<v1::LayerConfig> ParseLayerConfig(std::string_view json) {
  v1::LayerConfig config;
  const auto status = google::protobuf::util::JsonStringToMessage({json.data(), json.size()}, &config);
  if (status.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrCat("it is not a LayerConfig in JSON: ", std::string(status.message().data(), status.message().size())));
}

}  // namespace attend::server
