#include "core/reference/reference.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "core/reference/reference_operands.h"

namespace attend {
namespace {

using reference::Axes;
using reference::Matrix;
using reference::Number;
using reference::Operands;
using reference::Segment;
using Row = Eigen::RowVectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double Number(const TypedHeadsView& view, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d) {
  return Number(view.Row(b, h, t), view.type, d * view.dim_stride);
}

// One head of a segment; i and j count its queries and keys, and columns of tensors [.., T, S] are its keys.
struct Head {
  const Operands& x;
  const Segment& segment;
  std::int64_t b, h;

  std::int64_t Distance(std::int64_t i, std::int64_t j) const {  // How far key j is ahead of query i.
    return j - segment.Position(x.options.causal.value_or(CausalMode::kNone), i);
  }
};

double Bias(const Head& head, std::int64_t i, std::int64_t j) {
  const AttentionOptions& options = head.x.options;
  double bias = 0;
  if (options.bias) bias += Number(options.bias, head.b, head.h, head.segment.first_query + i, j);
  if (!options.alibi_slopes.empty()) {
    const double slope = options.alibi_slopes[head.h];
    bias -= slope * static_cast<double>(std::abs(head.Distance(i, j)));
  }
  return bias;
}

bool IsVisible(const Head& head, std::int64_t i, std::int64_t j) {
  const AttentionOptions& options = head.x.options;
  const std::int64_t ahead = head.Distance(i, j);
  if (j >= head.segment.valid_keys) return false;
  if (options.causal.value_or(CausalMode::kNone) != CausalMode::kNone && ahead > 0) return false;
  if (options.sliding_window_left && -ahead > *options.sliding_window_left) return false;
  if (options.sliding_window_right && ahead > *options.sliding_window_right) return false;
  const std::int64_t key = head.segment.first_key + j;  // Among all keys of the batch entry.
  if (options.key_mask && options.key_mask.Row(head.b, 0, 0)[key * options.key_mask.dim_stride] == 0) return false;
  const MaskView& mask = options.mask;
  return !mask || mask.Row(head.b, head.h, head.segment.first_query + i)[j * mask.dim_stride] != 0;
}

// mask(bias + softcap(scale * query . key^T)) of a segment, with -infinity where masked.
Matrix Scores(const Head& head) {
  const AttentionOptions& options = head.x.options;
  const Segment& segment = head.segment;
  const Matrix& query = head.x.Query(head.b, head.h);
  const Matrix& key = head.x.Key(head.b, head.h);
  const double scale = options.scale ? *options.scale : 1 / std::sqrt(static_cast<double>(query.cols()));
  Matrix scores = scale * (query.middleRows(segment.first_query, segment.num_queries) *
                           key.middleRows(segment.first_key, segment.num_keys).transpose());
  if (options.softcap) {
    const double cap = *options.softcap;
    scores = scores.unaryExpr([cap](double score) { return cap * std::tanh(score / cap); });
  }
  for (std::int64_t i = 0; i < scores.rows(); ++i) {
    for (std::int64_t j = 0; j < scores.cols(); ++j) {
      scores(i, j) = IsVisible(head, i, j) ? scores(i, j) + Bias(head, i, j) : -kInfinity;
    }
  }
  return scores;
}

// The weights of one row, and the logarithm of their denominator; zeros where every score is -infinity, with nothing
// but the sink in the denominator (-infinity without one). `sink` is in the denominator alone.
std::pair<Row, double> Softmax(const Row& scores, double sink) {
  if ((scores.array() == -kInfinity).all()) return {Row::Zero(scores.size()), sink};
  const double max = std::max(scores.maxCoeff(), sink);
  const Row exponentials = scores.unaryExpr([max](double score) { return std::exp(score - max); });
  const double sum = exponentials.sum() + std::exp(sink - max);
  return {exponentials / sum, max + std::log(sum)};
}

// weights . value, to which a key with score -infinity contributes nothing, not even 0 * NaN.
Row WeightedSum(const Row& scores, const Row& weights, const Matrix& value) {
  Row sum = Row::Zero(value.cols());
  for (std::int64_t j = 0; j < value.rows(); ++j) {
    if (scores(j) != -kInfinity) sum += weights(j) * value.row(j);
  }
  return sum;
}

// The most keys of a segment, at least 1: what tensors [.., T, S] have columns for.
std::int64_t Columns(const Operands& x) {
  std::int64_t columns = 1;
  for (const Segment& segment : Segments(x.options, x.axes, 0)) columns = std::max(columns, segment.num_keys);
  return columns;
}

// The results of rows that see no key.
ReferenceResult EmptyResult(const Operands& x, std::int64_t columns) {
  const std::int64_t rows = x.axes.batch * x.axes.queries;
  const auto filled = [](std::int64_t size, double with) {
    return std::vector<double>(static_cast<std::size_t>(size), with);
  };
  ReferenceResult result;
  result.output = filled(rows * x.axes.heads * x.value.front().cols(), 0);
  result.attention_weights = filled(rows * x.axes.heads * columns, 0);
  result.averaged_weights = filled(rows * columns, 0);
  result.scores = filled(rows * x.axes.heads * columns, -kInfinity);
  result.log_sum_exp = filled(rows * x.axes.heads, 0);
  return result;
}

// Writes the results of one head of a segment to their places.
void Attend(const Head& head, std::int64_t columns, ReferenceResult& result) {
  const auto& [x, segment, b, h] = head;
  const double sink = x.options.sinks.empty() ? -kInfinity : x.options.sinks[h];
  const Matrix scores = Scores(head);
  const Matrix value = x.Value(b, h).middleRows(segment.first_key, segment.num_keys);
  for (std::int64_t i = 0; i < segment.num_queries; ++i) {
    const auto [weights, log_sum_exp] = Softmax(scores.row(i), sink);
    const Row output = WeightedSum(scores.row(i), weights, value);
    const std::int64_t t = segment.first_query + i, row = (b * x.axes.heads + h) * x.axes.queries + t;
    std::copy(output.begin(), output.end(), result.output.begin() + row * output.size());
    std::copy(weights.begin(), weights.end(), result.attention_weights.begin() + row * columns);
    std::copy(scores.row(i).begin(), scores.row(i).end(), result.scores.begin() + row * columns);
    result.log_sum_exp[static_cast<std::size_t>(row)] = log_sum_exp;
    double* averaged = &result.averaged_weights[static_cast<std::size_t>((b * x.axes.queries + t) * columns)];
    for (const double weight : weights) *averaged++ += weight / static_cast<double>(x.axes.heads);
  }
}

// `scales` are there for INT8 alone. The product of an integer and a float32 number is rounded to float32, as a problem
// says what its numbers are.
std::vector<Matrix> Widen(const TypedHeadsView& view, const HeadsView& scales = {}) {
  const auto number = [&](std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d) {
    const double stored = Number(view, b, h, t, d);
    return scales ? double{static_cast<float>(stored) * *scales.Row(b, h, t)} : stored;
  };
  std::vector<Matrix> heads;
  for (std::int64_t b = 0; b < view.batch; ++b) {
    for (std::int64_t h = 0; h < view.heads; ++h) {
      heads.push_back(Matrix::NullaryExpr(view.length, view.dim,
                                          [&](Eigen::Index t, Eigen::Index d) { return number(b, h, t, d); }));
    }
  }
  return heads;
}

}  // namespace

namespace reference {

double Number(const void* numbers, DataType type, std::int64_t i) {
  switch (type) {
    case DataType::kFloat64: return static_cast<const double*>(numbers)[i];
    case DataType::kFloat16: return double{static_cast<float>(static_cast<const Eigen::half*>(numbers)[i])};
    case DataType::kBFloat16: return double{static_cast<float>(static_cast<const Eigen::bfloat16*>(numbers)[i])};
    case DataType::kInt8: return static_cast<double>(static_cast<const std::int8_t*>(numbers)[i]);
    default: return double{static_cast<const float*>(numbers)[i]};
  }
}

std::vector<Segment> Segments(const AttentionOptions& options, const Axes& axes, std::int64_t b) {
  const auto &queries = options.cumulative_query_lengths, &keys = options.cumulative_key_lengths;
  std::vector<Segment> segments;
  for (std::size_t n = 1; n < queries.size(); ++n) {
    const std::int64_t num_queries = queries[n] - queries[n - 1], num_keys = keys[n] - keys[n - 1];
    segments.push_back({queries[n - 1], num_queries, keys[n - 1], num_keys, num_queries, num_keys});
  }
  if (!segments.empty()) return segments;
  const auto valid = [b](absl::Span<const std::int64_t> lengths, std::int64_t all) {
    return lengths.empty() ? all : lengths[static_cast<std::size_t>(b)];
  };
  return {{0, axes.queries, 0, axes.keys, valid(options.query_lengths, axes.queries),
           valid(options.valid_lengths, axes.keys)}};
}

ReferenceResult Attention(const Operands& x) {
  const std::int64_t columns = Columns(x);
  ReferenceResult result = EmptyResult(x, columns);
  for (std::int64_t b = 0; b < x.axes.batch; ++b) {
    for (const Segment& segment : Segments(x.options, x.axes, b)) {
      for (std::int64_t h = 0; h < x.axes.heads; ++h) Attend({x, segment, b, h}, columns, result);
    }
  }
  return result;
}

}  // namespace reference

ReferenceResult ReferenceSdpa(const SdpaProblem& problem) {
  const Axes axes{problem.batch(), problem.num_heads(), problem.query_length(), problem.key_length()};
  return reference::Attention({axes, problem.options(), problem.num_kv_heads(), Widen(problem.query()),
                               Widen(problem.key(), problem.key_scales()),
                               Widen(problem.value(), problem.value_scales())});
}

}  // namespace attend
