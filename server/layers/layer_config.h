// v1::LayerConfig as a value: put together from several sources, and read from text.
#ifndef ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_
#define ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "formats/layers/layer_message.h"

namespace attend::server {

using formats::MergeLayerConfig;

// A LayerConfig in protobuf's JSON form: `{"numHeads": 12}` or `{"num_heads": 12}`. Errors: INVALID_ARGUMENT with what
// protobuf's parser says, for an unknown field too.
absl::StatusOr<v1::LayerConfig> ParseLayerConfig(std::string_view json);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_
