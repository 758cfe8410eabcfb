#include "core/attention/reference.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "core/attention/key_visibility.h"

namespace attend {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Row = Eigen::RowVectorXd;
using FloatMatrix = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A problem with its numbers widened to float64: one matrix for each batch entry and head, batch entries outermost.
struct Operands {
  AttentionShape shape;
  AttentionOptions options;
  std::int64_t kv_heads = 1;
  std::vector<Matrix> query;  // B * H matrices [T, E]
  std::vector<Matrix> key;    // B * K matrices [S, E]
  std::vector<Matrix> value;  // B * K matrices [S, V]

  const Matrix& Query(std::int64_t b, std::int64_t h) const { return query[Index(b, h, shape.heads)]; }
  const Matrix& Key(std::int64_t b, std::int64_t h) const { return key[Index(b, KvHead(h), kv_heads)]; }
  const Matrix& Value(std::int64_t b, std::int64_t h) const { return value[Index(b, KvHead(h), kv_heads)]; }

 private:
  std::int64_t KvHead(std::int64_t h) const { return h / (shape.heads / kv_heads); }
  static std::size_t Index(std::int64_t b, std::int64_t h, std::int64_t heads) {
    return static_cast<std::size_t>(b * heads + h);
  }
};

// Everything that is added after the softcap: [T, S].
Matrix Bias(const Operands& x, std::int64_t b, std::int64_t h) {
  Matrix bias = Matrix::Zero(x.shape.query_length, x.shape.key_length);
  const std::int64_t offset = PositionOffset(x.options, x.shape, b);
  for (std::int64_t t = 0; t < bias.rows(); ++t) {
    for (std::int64_t j = 0; j < bias.cols(); ++j) {
      if (x.options.bias) bias(t, j) += x.options.bias.Row(b, h, t)[j * x.options.bias.dim_stride];
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

template <typename Dense>
void Append(std::vector<double>& to, const Dense& rows) {
  to.insert(to.end(), rows.data(), rows.data() + rows.size());
}

// softmax(scores) . value for every batch entry and head: everything of the result but `query`, `key` and `value`.
ReferenceResult Attention(const Operands& x) {
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

std::vector<Matrix> Widen(const HeadsView& view) {
  std::vector<Matrix> heads;
  for (std::int64_t b = 0; b < view.batch; ++b) {
    for (std::int64_t h = 0; h < view.heads; ++h) {
      Matrix& head = heads.emplace_back(view.length, view.dim);
      for (std::int64_t t = 0; t < view.length; ++t) {
        head.row(t) = FloatMatrix(view.Row(b, h, t), 1, view.dim).cast<double>();
      }
    }
  }
  return heads;
}

// x . weight^T + bias
Matrix Project(const Matrix& x, const LinearView& linear) {
  const FloatMatrix weight(linear.weight, linear.out_features, linear.in_features);
  Matrix y = x * weight.cast<double>().transpose();
  if (linear.bias) y.rowwise() += Row(FloatMatrix(linear.bias, 1, linear.out_features).cast<double>());
  return y;
}

// Tokens [batch, length, dim] projected, then split into heads; as they are, in one head, without a layer.
std::vector<Matrix> ProjectedHeads(const EmbeddingsView& tokens, const LinearView* linear, std::int64_t num_heads) {
  std::vector<Matrix> heads;
  for (std::int64_t b = 0; b < tokens.batch; ++b) {
    Matrix x = FloatMatrix(tokens.data + b * tokens.length * tokens.dim, tokens.length, tokens.dim).cast<double>();
    if (linear) x = Project(x, *linear);
    const std::int64_t dim = x.cols() / num_heads;
    for (std::int64_t h = 0; h < num_heads; ++h) heads.emplace_back(x.middleCols(h * dim, dim));
  }
  return heads;
}

// [B, H, T, V] to [B, T, H * V], through the output projection if there is one.
std::vector<double> MergeHeads(const AttendProblem& problem, const std::vector<double>& split) {
  const std::int64_t length = problem.query_length(), dim = problem.value_dim();
  std::vector<double> merged;
  const double* head = split.data();
  for (std::int64_t b = 0; b < problem.batch(); ++b) {
    Matrix entry(length, problem.num_heads() * dim);
    for (std::int64_t h = 0; h < problem.num_heads(); ++h, head += length * dim) {
      entry.middleCols(h * dim, dim) = Eigen::Map<const Matrix>(head, length, dim);
    }
    const bool projects = problem.layer() && problem.layer()->output.weight;
    Append(merged, projects ? Project(entry, problem.layer()->output) : entry);
  }
  return merged;
}

}  // namespace

ReferenceResult ReferenceSdpa(const SdpaProblem& problem) {
  const AttentionShape shape{problem.batch(), problem.num_heads(), problem.query_length(), problem.key_length()};
  return Attention({shape, problem.options(), problem.num_kv_heads(), Widen(problem.query()), Widen(problem.key()),
                    Widen(problem.value())});
}

ReferenceResult ReferenceAttend(const AttendProblem& problem) {
  const AttentionShape shape{problem.batch(), problem.num_heads(), problem.query_length(), problem.key_length()};
  const LayerView* layer = problem.layer() ? &*problem.layer() : nullptr;
  const std::int64_t heads = problem.num_heads(), kv_heads = problem.num_kv_heads();
  const Operands x{shape,
                   problem.options(),
                   kv_heads,
                   ProjectedHeads(problem.embeddings(), layer ? &layer->query : nullptr, heads),
                   ProjectedHeads(problem.context(), layer ? &layer->key : nullptr, kv_heads),
                   ProjectedHeads(problem.context(), layer ? &layer->value : nullptr, kv_heads)};
  ReferenceResult result = Attention(x);
  result.output = MergeHeads(problem, result.output);
  for (const Matrix& query : x.query) Append(result.query, query);
  for (const Matrix& key : x.key) Append(result.key, key);
  for (const Matrix& value : x.value) Append(result.value, value);
  return result;
}

}  // namespace attend
