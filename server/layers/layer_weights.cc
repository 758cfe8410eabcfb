#include "server/layers/layer_weights.h"

#include <utility>

#include "core/base/error.h"
#include "formats/layers/field_error.h"
#include "formats/layers/layer_message.h"
#include "formats/layers/layer_reader.h"
#include "server/layers/layer_config.h"

namespace attend::server {
namespace {

DataType TypeOf(formats::WeightType type) {
  switch (type) {
    case formats::WeightType::kFloat64: return DataType::kFloat64;
    case formats::WeightType::kFloat16: return DataType::kFloat16;
    case formats::WeightType::kBFloat16: return DataType::kBFloat16;
    case formats::WeightType::kFloat32: break;
  }
  return DataType::kFloat32;
}

LinearView View(const formats::LinearWeights& linear) {
  return {.weight = linear.weight,
          .bias = linear.bias,
          .out_features = linear.out_features,
          .in_features = linear.in_features,
          .weight_type = TypeOf(linear.weight_type),
          .bias_type = TypeOf(linear.bias_type)};
}

NormView View(const formats::NormWeights& norm) {
  return {.weight = norm.weight, .bias = norm.bias, .size = norm.size};
}

}  // namespace

absl::StatusOr<LayerWeights> FindLayer(const formats::Checkpoint& checkpoint, std::string_view prefix,
                                       const v1::LayerConfig& caller, const std::optional<std::string>& config_json,
                                       const std::string& config_name) {
  const absl::StatusOr<v1::LayerConfig> metadata =
      formats::LayerConfigOfMetadata<v1::LayerConfig>(checkpoint.metadata(), ParseLayerConfig);
  if (!metadata.ok()) return metadata.status();
  const v1::LayerConfig said = MergeLayerConfig(*metadata, caller);
  absl::StatusOr<formats::AttentionLayer> layer =
      formats::ReadLayer(checkpoint, {prefix, formats::CallerSettingsOf(said), config_json, config_name});
  if (!layer.ok()) {
    const std::string field = formats::FieldOf(layer.status());
    return field.empty() ? layer.status() : InvalidField(field, std::string(layer.status().message()));
  }
  LayerWeights weights;
  weights.query = View(layer->query);
  weights.key = View(layer->key);
  weights.value = View(layer->value);
  weights.output = View(layer->output);
  weights.query_norm = View(layer->query_norm);
  weights.key_norm = View(layer->key_norm);
  formats::PutSettings(layer->settings, &weights.config);
  weights.config = MergeLayerConfig(weights.config, *metadata);
  weights.naming = std::move(layer->naming);
  weights.notes = std::move(layer->settings.notes);
  weights.memory = std::move(layer->memory);
  return weights;
}

}  // namespace attend::server
