#include "server/requests/layer_inputs.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

constexpr FieldPath kLayer = {v1::AttendRequest::kLayerFieldNumber};
constexpr char kWeightShape[] = "[out_features, in_features]";
constexpr char kBiasShape[] = "[out_features]";

struct LinearRule {
  TensorRule weight;
  TensorRule bias;
};

constexpr LinearRule MakeLinearRule(const char* weight, const char* bias, int field_number) {
  const FieldPath path = kLayer / static_cast<std::uint32_t>(field_number);
  return {{weight, path / v1::Linear::kWeightFieldNumber, TypeRule::kNumbers, {2}, kWeightShape},
          {bias, path / v1::Linear::kBiasFieldNumber, TypeRule::kNumbers, {1}, kBiasShape}};
}

constexpr LinearRule kRules[LayerInputs::kNumProjections] = {
    MakeLinearRule("layer.query_projection.weight", "layer.query_projection.bias",
                   v1::AttentionLayer::kQueryProjectionFieldNumber),
    MakeLinearRule("layer.key_projection.weight", "layer.key_projection.bias",
                   v1::AttentionLayer::kKeyProjectionFieldNumber),
    MakeLinearRule("layer.value_projection.weight", "layer.value_projection.bias",
                   v1::AttentionLayer::kValueProjectionFieldNumber),
    MakeLinearRule("layer.output_projection.weight", "layer.output_projection.bias",
                   v1::AttentionLayer::kOutputProjectionFieldNumber),
};

absl::StatusOr<LayerInputs::Linear> CheckLinear(const RawLinear& raw, const LinearRule& rule) {
  LayerInputs::Linear linear;
  if (!raw.present) return linear;
  const absl::StatusOr<InputTensor> weight = CheckTensor(raw.weight, rule.weight);
  if (!weight.ok()) return weight.status();
  if (!*weight) {
    return InvalidField(rule.weight.field, absl::StrCat(rule.weight.field,
                                                        " is missing; a projection that is given "
                                                        "needs its weight"));
  }
  const absl::StatusOr<InputTensor> bias = CheckTensor(raw.bias, rule.bias);
  if (!bias.ok()) return bias.status();
  if (*bias && bias->axis(0) != weight->axis(0)) {
    const std::string field = absl::StrCat(rule.bias.field, ".shape");
    return InvalidField(field, absl::StrCat(field, " is [", bias->axis(0), "], but ", rule.weight.field,
                                            ".shape starts with ", weight->axis(0), "; they must be equal"));
  }
  linear.weight = *weight;
  linear.bias = *bias;
  return linear;
}

LinearView ViewOf(const LayerInputs::Linear& linear) {
  if (!linear.weight) return {};
  return {linear.weight.elements(), linear.bias.elements(), linear.weight.axis(0),
          linear.weight.axis(1),    linear.weight.type(),   linear.bias.type()};
}

}  // namespace

void LayerInputs::AppendTensors(InputTensors& tensors) {
  if (!present) return;
  for (Linear& linear : projections) {
    AppendPresent(linear.weight, tensors);
    AppendPresent(linear.bias, tensors);
  }
}

std::optional<LayerView> LayerInputs::View() const {
  if (!present) return std::nullopt;
  return LayerView{.query = ViewOf(projections[0]),
                   .key = ViewOf(projections[1]),
                   .value = ViewOf(projections[2]),
                   .output = ViewOf(projections[3]),
                   .num_heads = num_heads,
                   .num_kv_heads = num_kv_heads};
}

absl::Status CheckLayer(const RawLayer& raw, LayerInputs& layer) {
  if (!raw.present) return absl::OkStatus();
  layer.present = true;
  layer.num_heads = raw.num_heads == 0 ? 1 : raw.num_heads;
  layer.num_kv_heads = raw.num_kv_heads == 0 ? layer.num_heads : raw.num_kv_heads;
  const RawLinear* raw_projections[] = {&raw.query_projection, &raw.key_projection, &raw.value_projection,
                                        &raw.output_projection};
  for (std::size_t i = 0; i < LayerInputs::kNumProjections; ++i) {
    const absl::StatusOr<LayerInputs::Linear> linear = CheckLinear(*raw_projections[i], kRules[i]);
    if (!linear.ok()) return linear.status();
    layer.projections[i] = *linear;
  }
  return absl::OkStatus();
}

}  // namespace attend::server
