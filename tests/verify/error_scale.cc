#include "tests/verify/error_scale.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <vector>

#include "client/lib/tensor.h"
#include "tests/verify/core_views.h"

namespace attend::client {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

std::vector<double> Doubles(const v1::Tensor& tensor) {
  const absl::StatusOr<Tensor> copy = Tensor::FromProto(v1::Tensor(tensor));
  return copy.ok() ? copy->ToDoubles() : std::vector<double>();
}

// A message's elements as [elements / cols, cols].
Matrix AsMatrix(const v1::Tensor& tensor, Eigen::Index cols) {
  const std::vector<double> values = Doubles(tensor);
  return Eigen::Map<const Matrix>(values.data(), static_cast<Eigen::Index>(values.size()) / cols, cols);
}

Eigen::Index LastAxis(const v1::Tensor& tensor) { return tensor.shape(tensor.shape_size() - 1); }

double MaxAbs(const v1::Tensor& tensor) {
  double max = 0;
  for (const double value : Doubles(tensor)) {
    if (std::isfinite(value)) max = std::max(max, std::abs(value));
  }
  return max;
}

double LargestRowSum(const v1::Tensor& weight) {
  return AsMatrix(weight, LastAxis(weight)).cwiseAbs().rowwise().sum().maxCoeff();
}

// Half a unit in the last place of 1, in the arithmetic that a tensor of this type goes with.
double HalfUnit(const v1::Tensor& tensor) {
  return std::ldexp(1, tensor.data_type() == v1::DATA_TYPE_FLOAT64 ? -53 : -24);
}

bool IsBFloat16(const v1::Tensor& tensor) { return tensor.data_type() == v1::DATA_TYPE_BFLOAT16; }

// n u (sum |w| |a| + |bias|), given inputs of at most `max_input`.
double Rounding(const v1::Linear& linear, double max_input) {
  const double size = LargestRowSum(linear.weight()) * max_input + (linear.has_bias() ? MaxAbs(linear.bias()) : 0);
  return static_cast<double>(LastAxis(linear.weight())) * HalfUnit(linear.weight()) * size;
}

// The largest magnitude of what a linear map makes of `input`.
double MaxProjected(const v1::Linear& linear, const v1::Tensor& input) {
  const Eigen::Index inputs = LastAxis(input);
  Matrix output = AsMatrix(input, inputs) * AsMatrix(linear.weight(), inputs).transpose();
  if (linear.has_bias()) output.rowwise() += AsMatrix(linear.bias(), output.cols()).row(0);
  return output.cwiseAbs().maxCoeff();
}

// How large the products that make up a score can be.
double ScoreSize(const v1::AttentionOptions& options, double head_dim, double max_query, double max_key) {
  const double scale = options.has_scale() ? std::abs(options.scale()) : 1 / std::sqrt(head_dim);
  return scale * max_query * max_key * head_dim;
}

// (E + 8) u times the sizes that meet in a score. A cap makes scores smaller, never larger.
double ScoreRounding(const v1::AttentionOptions& options, double half_unit, double head_dim, double max_query,
                     double max_key, double tokens) {
  double size = ScoreSize(options, head_dim, max_query, max_key);
  if (options.has_bias()) size += MaxAbs(options.bias());
  if (options.has_alibi_slopes()) size += MaxAbs(options.alibi_slopes()) * tokens;
  return (head_dim + 8) * half_unit * size;
}

double Axis(const v1::Tensor& tensor, int from_last) {
  return static_cast<double>(tensor.shape(tensor.shape_size() - from_last));
}

ErrorScale ScaleOf(const v1::ScaledDotProductAttentionRequest& request) {
  ErrorScale scale;
  scale.is_double = request.query().data_type() == v1::DATA_TYPE_FLOAT64;
  scale.is_merged = request.has_partials();
  scale.is_fast = request.options().precision() == v1::PRECISION_FAST && IsBFloat16(request.query()) &&
                  IsBFloat16(request.key()) && IsBFloat16(request.value());
  scale.max_value = MaxAbs(request.value());
  if (scale.is_merged) scale.max_value = std::max(scale.max_value, MaxAbs(request.partials().output()));
  const int tokens = IsTokensFirst(request.query(), request.layout()) ? 3 : 2;
  scale.score_rounding =
      ScoreRounding(request.options(), HalfUnit(request.query()), Axis(request.query(), 1), MaxAbs(request.query()),
                    MaxAbs(request.key()), Axis(request.query(), tokens) + Axis(request.key(), tokens));
  return scale;
}

ErrorScale ScaleOf(const v1::AttendRequest& request) {
  const v1::Tensor& embeddings = request.embeddings();
  const v1::Tensor& context = request.has_context() ? request.context() : embeddings;
  const v1::AttentionLayer& layer = request.layer();
  const double max_embedding = MaxAbs(embeddings);
  const double max_context = MaxAbs(context);
  double max_query = max_embedding;
  double max_key = max_context;
  double head_dim = Axis(embeddings, 1);
  ErrorScale scale;
  scale.is_double = embeddings.data_type() == v1::DATA_TYPE_FLOAT64;
  scale.max_value = max_context;
  if (request.has_layer()) {
    head_dim = Axis(layer.query_projection().weight(), 2) / std::max(layer.num_heads(), 1);
    max_query = MaxProjected(layer.query_projection(), embeddings);
    max_key = MaxProjected(layer.key_projection(), context);
    scale.max_value = MaxProjected(layer.value_projection(), context);
    scale.projection_rounding =
        std::max({Rounding(layer.query_projection(), max_embedding), Rounding(layer.key_projection(), max_context),
                  Rounding(layer.value_projection(), max_context)});
  }
  if (layer.has_output_projection()) {
    scale.output_gain = LargestRowSum(layer.output_projection().weight());
    scale.output_rounding = Rounding(layer.output_projection(), scale.max_value);
  }
  scale.score_rounding =
      ScoreRounding(request.options(), HalfUnit(embeddings), head_dim, max_query, max_key,
                    Axis(embeddings, 2) + Axis(context, 2)) +
      2 * scale.projection_rounding * ScoreSize(request.options(), head_dim, std::max(max_query, max_key), 1);
  scale.is_fast = request.options().precision() == v1::PRECISION_FAST && IsBFloat16(embeddings) && IsBFloat16(context);
  if (scale.is_fast && (request.has_layer() || !request.layer_name().empty())) {
    scale.rounded_scores = 2 * 0x1p-8 * ScoreSize(request.options(), head_dim, max_query, max_key);
  }
  return scale;
}

}  // namespace

ErrorScale ComputeErrorScale(const ComputationRequest& request) {
  return std::visit([](const auto& message) { return ScaleOf(message); }, request);
}

double ErrorBound(const std::string& name, const ErrorScale& scale) {
  constexpr double kLogSumExp = 1e-5;
  const double relative = scale.is_double ? 1e-12 : 2e-6;
  const double absolute = scale.is_double ? 0 : 1e-6;
  const double roundings = scale.is_double ? 2 : 1;
  if (name == "output") {
    const double merging = scale.is_merged ? kLogSumExp / 2 * scale.max_value : 0;
    const double weights = scale.is_fast ? 0x1p-8 : 0;
    const double layer = scale.rounded_scores > 0 ? std::expm1(2 * scale.rounded_scores) + 2 * 0x1p-8 : 0;
    return ((relative + weights + layer) * scale.max_value + absolute + merging) * scale.output_gain +
           roundings * scale.output_rounding;
  }
  if (name == "attention_weights" || name == "top_attention_weights") {
    return relative + absolute + std::expm1(2 * scale.rounded_scores);
  }
  if (name == "log_sum_exp") return kLogSumExp + scale.rounded_scores;
  if (name == "top_attention_indices") return 0;
  if (name == "scores") return roundings * scale.score_rounding + scale.rounded_scores + absolute;
  return roundings * scale.projection_rounding + absolute;
}

}  // namespace attend::client
