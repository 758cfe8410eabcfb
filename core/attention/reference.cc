#include "core/attention/reference.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "core/attention/key_visibility.h"
#include "core/attention/reference_operands.h"
#include "core/attention/sequences.h"

namespace attend {
namespace {

using reference::Attention;
using reference::Matrix;
using reference::Number;
using reference::Operands;
using Row = Eigen::RowVectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double Number(const TypedHeadsView& view, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d) {
  return Number(view.Row(b, h, t), view.type, d * view.dim_stride);
}

// Everything that is added after the softcap: [T, S].
Matrix Bias(const Operands& x, std::int64_t b, std::int64_t h) {
  Matrix bias = Matrix::Zero(x.shape.query_length, x.shape.key_length);
  const std::int64_t offset = PositionOffset(x.options, x.shape, b);
  for (std::int64_t t = 0; t < bias.rows(); ++t) {
    for (std::int64_t j = 0; j < bias.cols(); ++j) {
      if (x.options.bias) bias(t, j) += Number(x.options.bias, b, h, t, j);
      if (x.options.alibi_slopes.empty()) continue;
      const auto distance = static_cast<double>(std::abs(t + offset - j));
      bias(t, j) -= x.options.alibi_slopes[static_cast<std::size_t>(h)] * distance;
    }
  }
  return bias;
}

bool IsVisible(const Operands& x, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t j) {
  const std::int64_t position = t + PositionOffset(x.options, x.shape, b);
  const KeyRange range = VisibleKeyRange(x.options, ValidKeys(x.options, x.shape, b), position);
  const MaskView& mask = x.options.mask;
  return range.begin <= j && j < range.end && (!mask || mask.Row(b, h, t)[j * mask.dim_stride] != 0);
}

// mask(bias + softcap(scale * query . key^T)): [T, S], with -infinity where masked.
Matrix Scores(const Operands& x, std::int64_t b, std::int64_t h) {
  const Matrix& query = x.Query(b, h);
  const double scale = x.options.scale ? *x.options.scale : 1 / std::sqrt(static_cast<double>(query.cols()));
  Matrix scores = scale * (query * x.Key(b, h).transpose());
  if (x.options.softcap) {
    const double cap = *x.options.softcap;
    scores = scores.unaryExpr([cap](double score) { return cap * std::tanh(score / cap); });
  }
  scores += Bias(x, b, h);
  for (std::int64_t t = 0; t < scores.rows(); ++t) {
    for (std::int64_t j = 0; j < scores.cols(); ++j) {
      if (!IsVisible(x, b, h, t, j)) scores(t, j) = -kInfinity;
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

// Rows [begin, end) of each matrix.
std::vector<Matrix> MiddleRows(const std::vector<Matrix>& matrices, const KeyRange& rows) {
  std::vector<Matrix> middle;
  middle.reserve(matrices.size());
  for (const Matrix& matrix : matrices) middle.emplace_back(matrix.middleRows(rows.begin, rows.end - rows.begin));
  return middle;
}

// One sequence of a ragged batch by itself.
Operands SequenceOperands(const Operands& x, const Sequence& sequence) {
  Operands one{{1, x.shape.heads, sequence.num_queries(), sequence.num_keys()},
               WithoutSequences(x.options),
               x.kv_heads,
               MiddleRows(x.query, sequence.queries),
               MiddleRows(x.key, sequence.keys),
               MiddleRows(x.value, sequence.keys)};
  MaskView& mask = one.options.mask;
  TypedHeadsView& bias = one.options.bias;
  if (mask) mask.data = mask.Row(0, 0, sequence.queries.begin);
  if (bias) bias.data = bias.Row(0, 0, sequence.queries.begin);
  return one;
}

// Puts [H, rows, from_columns] into the first columns of `to` [H, length, columns].
void Place(const std::vector<double>& from, std::int64_t heads, const KeyRange& rows, std::int64_t from_columns,
           std::int64_t length, std::int64_t columns, std::vector<double>& to) {
  const double* next = from.data();
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t t = rows.begin; t < rows.end; ++t, next += from_columns) {
      std::copy(next, next + from_columns, to.begin() + (h * length + t) * columns);
    }
  }
}

ReferenceResult RaggedAttention(const Operands& x) {
  const std::int64_t heads = x.shape.heads, length = x.shape.query_length;
  const std::int64_t columns = ScoreColumns(x.options, x.shape.key_length), dim = x.value.front().cols();
  const auto zeros = [](std::int64_t size) { return std::vector<double>(static_cast<std::size_t>(size)); };
  ReferenceResult all;
  all.output = zeros(heads * length * dim);
  all.attention_weights = zeros(heads * length * columns);
  all.averaged_weights = zeros(length * columns);
  all.scores.assign(all.attention_weights.size(), -kInfinity);
  all.log_sum_exp = zeros(heads * length);
  for (std::int64_t n = 0; n < NumSequences(x.options); ++n) {
    const Sequence sequence = GetSequence(x.options, n);
    if (sequence.num_queries() == 0) continue;
    const ReferenceResult one = Attention(SequenceOperands(x, sequence));
    const std::int64_t keys = sequence.num_keys();
    Place(one.output, heads, sequence.queries, dim, length, dim, all.output);
    Place(one.attention_weights, heads, sequence.queries, keys, length, columns, all.attention_weights);
    Place(one.averaged_weights, 1, sequence.queries, keys, length, columns, all.averaged_weights);
    Place(one.scores, heads, sequence.queries, keys, length, columns, all.scores);
    Place(one.log_sum_exp, heads, sequence.queries, 1, length, 1, all.log_sum_exp);
  }
  return all;
}

std::vector<Matrix> Widen(const TypedHeadsView& view) {
  std::vector<Matrix> heads;
  for (std::int64_t b = 0; b < view.batch; ++b) {
    for (std::int64_t h = 0; h < view.heads; ++h) {
      heads.push_back(Matrix::NullaryExpr(view.length, view.dim,
                                          [&](Eigen::Index t, Eigen::Index d) { return Number(view, b, h, t, d); }));
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
    default: return double{static_cast<const float*>(numbers)[i]};
  }
}

ReferenceResult Attention(const Operands& x) {
  if (IsRagged(x.options)) return RaggedAttention(x);
  ReferenceResult result;
  for (std::int64_t b = 0; b < x.shape.batch; ++b) {
    Matrix averaged = Matrix::Zero(x.shape.query_length, x.shape.key_length);
    for (std::int64_t h = 0; h < x.shape.heads; ++h) {
      const double sink = x.options.sinks.empty() ? -kInfinity : x.options.sinks[static_cast<std::size_t>(h)];
      const Matrix scores = Scores(x, b, h);
      for (std::int64_t t = 0; t < x.shape.query_length; ++t) {
        const auto [weights, log_sum_exp] = Softmax(scores.row(t), sink);
        averaged.row(t) += weights / static_cast<double>(x.shape.heads);
        Append(result.output, WeightedSum(scores.row(t), weights, x.Value(b, h)));
        Append(result.attention_weights, weights);
        result.log_sum_exp.push_back(log_sum_exp);
      }
      Append(result.scores, scores);
    }
    Append(result.averaged_weights, averaged);
  }
  return result;
}

}  // namespace reference

ReferenceResult ReferenceSdpa(const SdpaProblem& problem) {
  const AttentionShape shape{problem.batch(), problem.num_heads(), problem.query_length(), problem.key_length()};
  return Attention({shape, problem.options(), problem.num_kv_heads(), Widen(problem.query()), Widen(problem.key()),
                    Widen(problem.value())});
}

}  // namespace attend
