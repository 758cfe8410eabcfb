#include "core/layer/norm_and_rotary.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/base/round.h"
#include "core/layer/rotary.h"
#include "core/problem/key_visibility.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

constexpr std::int64_t kPartialSums = 8;

// The sum of term(i) for i in [0, size).
template <typename Term>
double Sum(std::int64_t size, const Term& term) {
  double x[kPartialSums] = {};
  std::int64_t i = 0;
  for (; i + kPartialSums <= size; i += kPartialSums) {
    for (std::int64_t j = 0; j < kPartialSums; ++j) x[j] += term(i + j);
  }
  for (std::int64_t j = 0; i + j < size; ++j) x[j] += term(i + j);
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

// The power of two by which a row is multiplied, and epsilon by its square, so that no square leaves the range of
// double: 1 for a row of FLOAT32, and for one of FLOAT64 whose largest magnitude is within [2^-400, 2^400].
double UnitOf(const float*, const NormView&) { return 1; }
double UnitOf(const double* row, const NormView& norm) {
  double largest = 0;
  for (std::int64_t i = 0; i < norm.size; ++i) largest = std::max(largest, std::abs(row[i]));
  if (largest == 0 || !std::isfinite(largest) || std::abs(std::ilogb(largest)) <= 400) return 1;
  const double unit = std::ldexp(1.0, std::clamp(-std::ilogb(largest), -1000, 1000));
  return std::isfinite(norm.epsilon * unit * unit) ? unit : 1;  // Not finite: epsilon outweighs any of these squares.
}

template <typename T>
void NormalizeRow(const NormView& norm, T* row) {
  const double unit = UnitOf(row, norm);
  const auto number = [row, unit](std::int64_t i) { return static_cast<double>(row[i]) * unit; };
  const auto size = static_cast<double>(norm.size);
  const double mean = norm.kind == NormKind::kLayer ? Sum(norm.size, number) / size : 0;
  const double squares = Sum(norm.size, [&number, mean](std::int64_t i) {
    const double x = number(i) - mean;
    return x * x;
  });
  const double factor = 1 / std::sqrt(squares / size + norm.epsilon * unit * unit);
  const double added = norm.adds_one ? 1 : 0;
  for (std::int64_t i = 0; i < norm.size; ++i) {
    const double x = (number(i) - mean) * factor * (added + static_cast<double>(norm.weight[i]));
    row[i] = static_cast<T>(norm.bias == nullptr ? x : x + static_cast<double>(norm.bias[i]));
  }
}

// Between two reads of the cancellation flag: about a millisecond on one core.
constexpr std::int64_t kElementsPerTile = 1 << 18;

void AppendRange(std::int64_t first, std::int64_t count, std::vector<std::int64_t>& to) {
  for (std::int64_t i = 0; i < count; ++i) to.push_back(first + i);
}

// The position of the first key of batch entry or sequence n.
std::int64_t FirstPosition(const AttendProblem& problem, std::int64_t n) {
  const auto& offsets = problem.position_offsets();
  return offsets.empty() ? problem.position_offset() : offsets[static_cast<std::size_t>(n)];
}

// All of one kind of row: queries or keys.
template <typename T>
struct HeadRows {
  T* data;
  std::int64_t heads;
  std::int64_t head_dim;
  const NormView& norm;
  bool norm_comes_last;
  std::vector<std::int64_t> positions;  // Of each row; empty without a rotary embedding.

  // Applies norm and rotary embedding to one row.
  void Apply(std::int64_t row, RotaryApplier<T>& rotary) const {
    const std::int64_t size = heads * head_dim;
    T* const numbers = data + row * size;
    if (norm.weight != nullptr && !norm_comes_last) Normalize(norm, size / norm.size, numbers);
    if (!positions.empty()) rotary.Apply(positions[static_cast<std::size_t>(row)], heads, head_dim, numbers);
    if (norm.weight != nullptr && norm_comes_last) Normalize(norm, size / norm.size, numbers);
  }
};

}  // namespace

template <typename T>
void Normalize(const NormView& norm, std::int64_t rows, T* data) {
  for (std::int64_t r = 0; r < rows; ++r) NormalizeRow(norm, data + r * norm.size);
}

template void Normalize(const NormView&, std::int64_t, float*);
template void Normalize(const NormView&, std::int64_t, double*);

std::vector<std::int64_t> QueryPositions(const AttendProblem& problem) {
  std::vector<std::int64_t> positions;
  positions.reserve(static_cast<std::size_t>(problem.batch() * problem.query_length()));
  const AttentionOptions& options = problem.options();
  if (!IsRagged(options)) {
    for (std::int64_t b = 0; b < problem.batch(); ++b) {
      AppendRange(FirstPosition(problem, b) + PositionOffset(options, problem.shape(), b), problem.query_length(),
                  positions);
    }
    return positions;
  }
  const AttentionOptions one = WithoutSequences(options);
  for (std::int64_t n = 0; n < NumSequences(options); ++n) {
    const Sequence sequence = GetSequence(options, n);
    const AttentionShape shape{1, problem.num_heads(), sequence.num_queries(), sequence.num_keys()};
    AppendRange(FirstPosition(problem, n) + PositionOffset(one, shape, 0), sequence.num_queries(), positions);
  }
  return positions;
}

std::vector<std::int64_t> KeyPositions(const AttendProblem& problem) {
  std::vector<std::int64_t> positions;
  positions.reserve(static_cast<std::size_t>(problem.batch() * problem.key_length()));
  const AttentionOptions& options = problem.options();
  const bool is_ragged = IsRagged(options);
  const std::int64_t count = is_ragged ? NumSequences(options) : problem.batch();
  for (std::int64_t n = 0; n < count; ++n) {
    AppendRange(FirstPosition(problem, n), is_ragged ? GetSequence(options, n).num_keys() : problem.key_length(),
                positions);
  }
  return positions;
}

template <typename T>
void ApplyNormAndRotary(const AttendProblem& problem, const ComputeContext& context, T* query, T* key) {
  const LayerView& layer = *problem.layer();
  if (!HasNormOrRotary(layer)) return;
  const bool rotates = !layer.rotary.frequencies.empty();
  const std::int64_t num_queries = problem.batch() * problem.query_length();
  const std::int64_t num_keys = problem.batch() * problem.key_length();
  using Positions = std::vector<std::int64_t>;
  const HeadRows<T> queries{query,
                            layer.num_heads,
                            problem.head_dim(),
                            layer.query_norm,
                            layer.norms_after_rotary,
                            rotates ? QueryPositions(problem) : Positions()};
  const HeadRows<T> keys{key,
                         layer.num_kv_heads,
                         problem.head_dim(),
                         layer.key_norm,
                         layer.norms_after_rotary,
                         rotates ? KeyPositions(problem) : Positions()};
  const RotaryAngles angles(layer.rotary.frequencies);
  const std::int64_t rows = std::max(num_queries, num_keys);
  const std::int64_t rows_per_tile =
      std::clamp<std::int64_t>(kElementsPerTile / (layer.query.out_features + layer.key.out_features), 1, 32);
  ForEach(context, CeilDiv(rows, rows_per_tile), [&](std::int64_t i) {
    if (IsCancelled(context)) return;
    RotaryApplier<T> rotary(angles, layer.rotary.interleaved, layer.rotary.factor);
    // A query and the key of the same token one after the other: they share their sines and cosines.
    for (std::int64_t row = i * rows_per_tile; row < std::min((i + 1) * rows_per_tile, rows); ++row) {
      if (row < num_queries) queries.Apply(row, rotary);
      if (row < num_keys) keys.Apply(row, rotary);
    }
  });
}

template void ApplyNormAndRotary(const AttendProblem&, const ComputeContext&, float*, float*);
template void ApplyNormAndRotary(const AttendProblem&, const ComputeContext&, double*, double*);

}  // namespace attend
