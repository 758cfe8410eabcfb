#include "client/cli/comparison.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/attention_flags.h"
#include "client/cli/tensor_source.h"

namespace attend::client {
namespace {

constexpr double kHalfUnit = 1.0 / (1 << 24);

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A message's float32 elements as [elements / last axis, last axis], or [count, 1] for a vector.
Eigen::Map<const Matrix> AsMatrix(const v1::Tensor& tensor, Eigen::Index cols) {
  const auto count = static_cast<Eigen::Index>(tensor.data().size() / sizeof(float));
  return {reinterpret_cast<const float*>(tensor.data().data()), count / cols, cols};
}

Eigen::Index LastAxis(const v1::Tensor& tensor) { return tensor.shape(tensor.shape_size() - 1); }

double MaxAbs(const v1::Tensor& tensor) {
  double max = 0;
  const Eigen::Map<const Matrix> values = AsMatrix(tensor, 1);
  for (Eigen::Index i = 0; i < values.size(); ++i) {
    const float value = values.data()[i];
    if (std::isfinite(value)) max = std::max(max, static_cast<double>(std::abs(value)));
  }
  return max;
}

double LargestRowSum(const v1::Tensor& weight) {
  return AsMatrix(weight, LastAxis(weight)).cast<double>().cwiseAbs().rowwise().sum().maxCoeff();
}

// n u (sum |w| |a| + |bias|), given inputs of at most `max_input`.
double Rounding(const v1::Linear& linear, double max_input) {
  const double size = LargestRowSum(linear.weight()) * max_input + (linear.has_bias() ? MaxAbs(linear.bias()) : 0);
  return static_cast<double>(LastAxis(linear.weight())) * kHalfUnit * size;
}

// The largest magnitude of what a linear map makes of `input`.
double MaxProjected(const v1::Linear& linear, const v1::Tensor& input) {
  const Eigen::Index inputs = LastAxis(input);
  Eigen::MatrixXd output =
      AsMatrix(input, inputs).cast<double>() * AsMatrix(linear.weight(), inputs).cast<double>().transpose();
  if (linear.has_bias()) output.rowwise() += AsMatrix(linear.bias(), output.cols()).cast<double>().row(0);
  return output.cwiseAbs().maxCoeff();
}

// How large the products that make up a score can be.
double ScoreSize(const v1::AttentionOptions& options, double head_dim, double max_query, double max_key) {
  const double scale = options.has_scale() ? std::abs(options.scale()) : 1 / std::sqrt(head_dim);
  return scale * max_query * max_key * head_dim;
}

// (E + 8) u times the sizes that meet in a score. A cap makes scores smaller, never larger.
double ScoreRounding(const v1::AttentionOptions& options, double head_dim, double max_query, double max_key,
                     double tokens) {
  double size = ScoreSize(options, head_dim, max_query, max_key);
  if (options.has_bias()) size += MaxAbs(options.bias());
  if (options.has_alibi_slopes()) size += MaxAbs(options.alibi_slopes()) * tokens;
  return (head_dim + 8) * kHalfUnit * size;
}

double Axis(const v1::Tensor& tensor, int from_last) {
  return static_cast<double>(tensor.shape(tensor.shape_size() - from_last));
}

ErrorScale ScaleOf(const v1::ScaledDotProductAttentionRequest& request) {
  ErrorScale scale;
  scale.max_value = MaxAbs(request.value());
  scale.score_rounding = ScoreRounding(request.options(), Axis(request.query(), 1), MaxAbs(request.query()),
                                       MaxAbs(request.key()), Axis(request.query(), 2) + Axis(request.key(), 2));
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
      ScoreRounding(request.options(), head_dim, max_query, max_key, Axis(embeddings, 2) + Axis(context, 2)) +
      2 * scale.projection_rounding * ScoreSize(request.options(), head_dim, std::max(max_query, max_key), 1);
  return scale;
}

// The difference of two values; none where both are NaN or the same infinity.
double Difference(double got, double expected) {
  if (got == expected || (std::isnan(got) && std::isnan(expected))) return 0;
  const double difference = std::abs(got - expected);
  return std::isfinite(difference) ? difference : std::numeric_limits<double>::infinity();
}

std::vector<std::int64_t> Unravel(std::size_t position, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = static_cast<std::int64_t>(position % static_cast<std::size_t>(shape[axis]));
    position /= static_cast<std::size_t>(shape[axis]);
  }
  return index;
}

}  // namespace

Comparison Compare(const std::string& name, const std::string& against, const Tensor& got,
                   absl::Span<const double> expected, double bound) {
  Comparison comparison{name, against, -1, bound, {}, 0, 0};
  const std::vector<double> values = got.ToDoubles();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double error = Difference(values[i], expected[i]);
    if (error <= comparison.error) continue;
    comparison.error = error;
    comparison.index = Unravel(i, got.shape());
    comparison.got = values[i];
    comparison.expected = expected[i];
  }
  comparison.error = std::max(comparison.error, 0.0);
  return comparison;
}

ErrorScale ComputeErrorScale(const ComputationRequest& request) {
  return std::visit([](const auto& message) { return ScaleOf(message); }, request);
}

double ErrorBound(const std::string& name, const ErrorScale& scale) {
  constexpr double kRelative = 2e-6;
  constexpr double kAbsolute = 1e-6;
  if (name == "output") {
    return (kRelative * scale.max_value + kAbsolute) * scale.output_gain + scale.output_rounding;
  }
  if (name == "attention_weights") return kRelative + kAbsolute;
  if (name == "log_sum_exp") return 1e-5;
  return (name == "scores" ? scale.score_rounding : scale.projection_rounding) + kAbsolute;
}

std::string Describe(const Comparison& comparison) {
  return absl::StrFormat("%s: largest error %.3g at %s (%.9g against %.9g), bound %.3g: %s (against %s)",
                         comparison.name, comparison.error, ShapeString(comparison.index), comparison.got,
                         comparison.expected, comparison.bound, comparison.ok() ? "ok" : "TOO LARGE",
                         comparison.against);
}

absl::StatusOr<Expectation> Expectation::Parse(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) return Expectation{"output", text};
  Expectation expectation{text.substr(0, equals), text.substr(equals + 1)};
  if (OutputKindOf(expectation.name) == v1::OUTPUT_KIND_UNSPECIFIED) {
    return absl::InvalidArgumentError(
        absl::StrCat("--expect ", text, ": no returned tensor is called '", expectation.name, "'"));
  }
  return expectation;
}

absl::StatusOr<Comparison> CompareExpected(const Expectation& expectation, const Outcome& outcome,
                                           const ErrorScale& scale) {
  const absl::StatusOr<Tensor> expected = LoadTensor(expectation.source);
  if (!expected.ok()) return expected.status();
  const Tensor* got = Find(outcome.tensors, expectation.name);
  if (got == nullptr) return absl::InternalError(absl::StrCat("the server returned no ", expectation.name));
  if (got->shape() != expected->shape()) {
    return absl::InvalidArgumentError(absl::StrCat(expectation.name, " has shape ", ShapeString(got->shape()), ", but ",
                                                   expectation.source, " has ", ShapeString(expected->shape())));
  }
  const std::vector<double> values = expected->ToDoubles();
  return Compare(expectation.name, expectation.source, *got, values, ErrorBound(expectation.name, scale));
}

}  // namespace attend::client
