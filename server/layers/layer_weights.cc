#include "server/layers/layer_weights.h"

#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/base/error.h"
#include "core/tensor/aligned_buffer.h"
#include "formats/layers/layer_message.h"
#include "formats/layers/layer_reader.h"
#include "formats/layers/layer_settings.h"
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

// What torch.Tensor.uniform_(-bound, bound) does to `numbers`.
void DrawUniform(double bound, std::mt19937& generator, absl::Span<float> numbers) {
  constexpr std::uint32_t kMask = (std::uint32_t{1} << 24) - 1;
  constexpr float kStep = 1.0F / (1 << 24);
  const auto to = static_cast<float>(bound);
  const float from = -to;
  for (float& number : numbers) {
    const float unit = static_cast<float>(static_cast<std::uint32_t>(generator()) & kMask) * kStep;
    number = std::fma(unit, to - from, from);
  }
}

}  // namespace

absl::StatusOr<LayerWeights> FindLayer(const formats::Checkpoint& checkpoint, std::string_view prefix,
                                       const v1::LayerConfig& caller, const std::optional<std::string>& config_json,
                                       const std::string& config_name, formats::MayCopy may_copy, bool is_stored) {
  const absl::StatusOr<v1::LayerConfig> metadata =
      formats::LayerConfigOfMetadata<v1::LayerConfig>(checkpoint.metadata(), ParseLayerConfig, is_stored);
  if (!metadata.ok()) return metadata.status();
  if (absl::Status ignored = CheckIgnoredTensors(caller); !ignored.ok() && !is_stored) return ignored;
  v1::LayerConfig of_file = *metadata, given = caller;
  for (v1::LayerConfig* const part : {&of_file, &given}) {
    if (absl::Status status = ReplaceFloatFields(*part); !status.ok()) return status;
  }
  const v1::LayerConfig said = MergeLayerConfig(of_file, given);
  absl::StatusOr<formats::AttentionLayer> layer = formats::ReadLayer(
      checkpoint, {prefix, formats::CallerSettingsOf(said), config_json, config_name, may_copy, is_stored});
  if (!layer.ok()) {
    const std::string field = formats::FieldOf(layer.status());
    const bool is_of_file = !IsSetIn(given, field) && IsSetIn(of_file, field);
    if (is_of_file) {
      return absl::InvalidArgumentError(absl::StrCat("by the file's metadata, ", layer.status().message()));
    }
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
  weights.config = MergeLayerConfig(weights.config, of_file);
  weights.naming = std::move(layer->naming);
  weights.notes = std::move(layer->settings.notes);
  weights.memory = std::move(layer->memory);
  return weights;
}

std::int64_t SeededWeightBytes(std::int64_t embed_dim) { return 12 * embed_dim * (embed_dim + 1); }

absl::StatusOr<LayerWeights> SeededLayer(const v1::SeededWeights& seeded) {
  const std::int64_t dim = seeded.embed_dim();
  if (dim < 1 || dim > kMaxSeededEmbedDim) {
    return InvalidField("init.embed_dim",
                        absl::StrCat("init.embed_dim is ", dim, "; it must be between 1 and ", kMaxSeededEmbedDim));
  }
  // PyTorch adds 2^64 to a negative seed, which leaves the lower bits as they are.
  std::mt19937 generator(static_cast<std::uint32_t>(static_cast<std::uint64_t>(seeded.seed())));
  // In the order of torch.nn.init: sqrt(3) times the standard deviation, which is the gain by the square root of D.
  const double fan_in = static_cast<double>(dim);
  const double gain = std::sqrt(2.0 / (1.0 + std::pow(std::sqrt(5.0), 2)));
  const double weight_bound = std::sqrt(3.0) * (gain / std::sqrt(fan_in));
  const double bias_bound = 1 / std::sqrt(fan_in);

  const auto numbers = std::make_shared<const AlignedBuffer<float>>(SeededWeightBytes(dim) / 4);
  LayerWeights weights;
  float* next = numbers->data();
  for (LinearView* linear : {&weights.query, &weights.key, &weights.value}) {
    float* const bias = next + dim * dim;
    DrawUniform(weight_bound, generator, {next, static_cast<std::size_t>(dim * dim)});
    DrawUniform(bias_bound, generator, {bias, static_cast<std::size_t>(dim)});
    *linear = {.weight = next, .bias = bias, .out_features = dim, .in_features = dim};
    next = bias + dim;
  }
  weights.naming = "notebook";
  weights.memory = numbers;
  return weights;
}

}  // namespace attend::server
