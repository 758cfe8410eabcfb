// Layers: projections, norms and rotary embedding around reference attention.
#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/reference/reference.h"
#include "core/reference/reference_operands.h"

namespace attend {
namespace {

using reference::Append;
using reference::Axes;
using reference::Matrix;
using reference::Number;
using reference::Operands;
using reference::Segment;
using Row = Eigen::RowVectorXd;

// The dense matrix [rows, columns] that starts at number `first`.
Matrix Widen(const void* numbers, DataType type, std::int64_t first, std::int64_t rows, std::int64_t columns) {
  return Matrix::NullaryExpr(
      rows, columns, [=](Eigen::Index i, Eigen::Index j) { return Number(numbers, type, first + i * columns + j); });
}

// x . weight^T + bias
Matrix Project(const Matrix& x, const LinearView& linear) {
  Matrix y = x * Widen(linear.weight, linear.weight_type, 0, linear.out_features, linear.in_features).transpose();
  if (linear.bias) y.rowwise() += Row(Widen(linear.bias, linear.bias_type, 0, 1, linear.out_features));
  return y;
}

Row Normalized(const Row& row, const NormView& norm) {
  const bool centers = norm.kind == NormKind::kLayer;
  const Row x = centers ? Row(row.array() - row.mean()) : row;
  const double deviation = std::sqrt(x.squaredNorm() / static_cast<double>(x.size()) + norm.epsilon);
  Row y(x.size());
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double weight = (norm.adds_one ? 1.0 : 0.0) + double{norm.weight[i]};
    y(i) = x(i) / deviation * weight + (norm.bias ? double{norm.bias[i]} : 0.0);
  }
  return y;
}

// [length, heads * E], over each head by itself or over all of them.
void Normalize(const NormView& norm, Matrix& x) {
  if (norm.weight == nullptr) return;
  for (std::int64_t t = 0; t < x.rows(); ++t) {
    for (std::int64_t first = 0; first < x.cols(); first += norm.size) {
      x.row(t).segment(first, norm.size) = Normalized(x.row(t).segment(first, norm.size), norm);
    }
  }
}

// One head's row at `position`.
void Rotate(const RotaryView& rotary, std::int64_t position, Eigen::Ref<Row> row) {
  const auto pairs = static_cast<std::int64_t>(rotary.frequencies.size());
  for (std::int64_t i = 0; i < pairs; ++i) {
    const double angle = static_cast<double>(position) * rotary.frequencies[static_cast<std::size_t>(i)];
    const std::int64_t first = rotary.interleaved ? 2 * i : i, second = rotary.interleaved ? 2 * i + 1 : i + pairs;
    const double x = row(first), y = row(second);
    row(first) = rotary.factor * (std::cos(angle) * x - std::sin(angle) * y);
    row(second) = rotary.factor * (std::sin(angle) * x + std::cos(angle) * y);
  }
}

Axes AxesOf(const AttendProblem& problem) {
  return {problem.batch(), problem.num_heads(), problem.query_length(), problem.key_length()};
}

// The position of token t of batch entry b: among the keys for a query, among the tokens of its own segment for a key;
// after the offset of its batch entry, or of its segment where the entry has several.
std::int64_t Position(const AttendProblem& problem, bool is_key, std::int64_t b, const std::vector<Segment>& segments,
                      std::int64_t t) {
  const bool is_ragged = !problem.options().cumulative_query_lengths.empty();
  for (std::size_t n = 0; n < segments.size(); ++n) {
    const Segment& segment = segments[n];
    const std::int64_t i = t - (is_key ? segment.first_key : segment.first_query);
    if (i >= (is_key ? segment.num_keys : segment.num_queries)) continue;
    const auto& offsets = problem.position_offsets();
    const std::int64_t offset =
        offsets.empty() ? problem.position_offset() : offsets[is_ragged ? n : static_cast<std::size_t>(b)];
    return offset + (is_key ? i : segment.Position(problem.options().causal.value_or(CausalMode::kNone), i));
  }
  return 0;  // Never: every token is in a segment.
}

// Queries or keys [length, heads * E] of batch entry b: normalised and rotated.
void Finish(const AttendProblem& problem, bool is_key, std::int64_t b, Matrix& x) {
  const LayerView& layer = *problem.layer();
  const NormView& norm = is_key ? layer.key_norm : layer.query_norm;
  if (!layer.norms_after_rotary) Normalize(norm, x);
  const auto segments = reference::Segments(problem.options(), AxesOf(problem), b);
  for (std::int64_t t = 0; t < x.rows(); ++t) {
    for (std::int64_t first = 0; first < x.cols(); first += problem.head_dim()) {
      Row row = x.row(t).segment(first, problem.head_dim());
      Rotate(layer.rotary, Position(problem, is_key, b, segments, t), row);
      x.row(t).segment(first, problem.head_dim()) = row;
    }
  }
  if (layer.norms_after_rotary) Normalize(norm, x);
}

enum class Role { kQuery, kKey, kValue };

// The tokens as queries, keys or values: projected, normalised, rotated and split into heads. Without a layer they stay
// as they are, in one head.
std::vector<Matrix> Heads(const AttendProblem& problem, Role role) {
  const EmbeddingsView& tokens = role == Role::kQuery ? problem.embeddings() : problem.context();
  const std::int64_t num_heads = role == Role::kQuery ? problem.num_heads() : problem.num_kv_heads();
  std::vector<Matrix> heads;
  for (std::int64_t b = 0; b < tokens.batch; ++b) {
    Matrix x = Widen(tokens.data, tokens.type, b * tokens.length * tokens.dim, tokens.length, tokens.dim);
    if (const auto& layer = problem.layer(); layer) {
      x = Project(x, role == Role::kQuery ? layer->query : role == Role::kKey ? layer->key : layer->value);
      if (role != Role::kValue) Finish(problem, role == Role::kKey, b, x);
    }
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
    const bool projects = problem.layer() && problem.layer()->output.present();
    Append(merged, projects ? Project(entry, problem.layer()->output) : entry);
  }
  return merged;
}

}  // namespace

ReferenceResult ReferenceAttend(const AttendProblem& problem) {
  const Operands x{AxesOf(problem),
                   problem.options(),
                   problem.num_kv_heads(),
                   Heads(problem, Role::kQuery),
                   Heads(problem, Role::kKey),
                   Heads(problem, Role::kValue)};
  ReferenceResult result = reference::Attention(x);
  result.output = MergeHeads(problem, result.output);
  for (const Matrix& query : x.query) Append(result.query, query);
  for (const Matrix& key : x.key) Append(result.key, key);
  for (const Matrix& value : x.value) Append(result.value, value);
  return result;
}

}  // namespace attend
