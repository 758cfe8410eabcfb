// v1::LayerConfig as a value: put together from several sources, and read from text.
#ifndef ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_
#define ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"

namespace attend::server {

// What `over` says, and where it says nothing, what `base` does: field by field, also within `options`. A rotary
// embedding, a tensor and the scaling of positions are one thing each. Pure.
v1::LayerConfig MergeLayerConfig(const v1::LayerConfig& base, const v1::LayerConfig& over);

// A LayerConfig in protobuf's JSON form: `{"numHeads": 12}` or `{"num_heads": 12}`. Errors: INVALID_ARGUMENT with what
// protobuf's parser says, for an unknown field too.
absl::StatusOr<v1::LayerConfig> ParseLayerConfig(std::string_view json);

// What the `__metadata__` of a .safetensors file says about a layer:
//   num_heads, num_kv_heads   decimal numbers
//   causal                    `bottom_right`, `top_left` or `none`
//   attend.layer_config       a LayerConfig in JSON; the keys above go before it
// Errors: INVALID_ARGUMENT naming the key.
absl::StatusOr<v1::LayerConfig> LayerConfigOfMetadata(const std::map<std::string, std::string>& metadata);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_
