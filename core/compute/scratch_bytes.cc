// The bounds follow what compute_sdpa.cc, row_group.cc, exact_rows.cc and compute_double.cc allocate, rounded up.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/round.h"
#include "core/compute/compute_sdpa.h"
#include "core/compute/exact_rows.h"
#include "core/compute/widened_rows.h"
#include "core/compute/workspace.h"
#include "core/kernels/kernel_table.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

// Of the widest instruction set.
constexpr std::int64_t kPanelRows = 48;
constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kPanelsPerGroup = 4;
constexpr std::int64_t kDoubleRowsPerTile = 8;
// Of the kernels for few rows: rows of a panel, and floats of its state beside the output.
constexpr double kFewRowsPerPanel = 8, kFewRowsHead = 32;
// Rounding to cache lines, and the small parts of a panel: maximum, sum, masks. Of kernels with tiles also the copy of
// a block's keys (4096), and what fills pairs of fewer than 32 head dimensions up (14 for each of 192 rows at most).
constexpr double kFloatsBesides = 8192;

// Of so many rows of one key/value head, for the kernels that need more.
double StateFloats(double rows, std::int64_t value_dim) {
  const double queries_in_lanes = rows * static_cast<double>(PadToCacheLine(value_dim) + 3);
  const double panels = std::ceil(rows / kFewRowsPerPanel);
  return std::max(queries_in_lanes, rows * static_cast<double>(PadToCacheLine(value_dim)) + panels * kFewRowsHead);
}

// The largest weights of a row so far.
template <typename T>
double TopBytes(const SdpaExtents& extents) {
  return sizeof(std::pair<T, std::int32_t>) * static_cast<double>(std::min(extents.top_k, extents.key_length));
}

// Of a group of `num_rows` rows of one key/value head.
double GroupFloats(const SdpaExtents& extents, std::int64_t num_rows) {
  const auto rows = static_cast<double>(num_rows);
  // Packed queries, the states of all keys and of one chunk, and a block of scores.
  double floats = rows * static_cast<double>(extents.head_dim) + 2 * StateFloats(rows, extents.value_dim) +
                  static_cast<double>(kKeyBlock + 1) * kPanelRows + kFloatsBesides;
  // Float copies of queries, outputs, and the keys and values of a tile.
  if (extents.has_narrow) {
    const auto keys = static_cast<double>(std::min(kKeysPerTile, extents.key_length));
    floats += (rows + keys) * (static_cast<double>(PadToCacheLine(extents.head_dim)) +
                               static_cast<double>(PadToCacheLine(extents.value_dim)));
  }
  // Values of a block that the kernels for few rows copy.
  if (extents.has_narrow || extents.value_dim % kLanes != 0) {
    floats += static_cast<double>(kKeyBlock) * static_cast<double>(PadToCacheLine(extents.value_dim));
  }
  return floats;
}

double FloatBytes(const SdpaExtents& extents, int num_threads) {
  const std::int64_t all_rows = RoundUp(extents.rows, kLanes);
  const std::int64_t rows = std::min(all_rows, kPanelRows * kPanelsPerGroup);
  const bool has_chunks = extents.key_length > kKeyChunk;
  // Of each thread: one group, or one of few rows for each head that takes turns. A sequence may have few rows where
  // all together have many.
  double per_thread = GroupFloats(extents, rows);
  if (has_chunks && (extents.rows <= kLanes || extents.sequences > 1)) {
    const auto heads = static_cast<double>(std::min(kMaxHeadsInTurns, extents.kv_heads));
    per_thread = std::max(per_thread, heads * GroupFloats(extents, std::min(all_rows, kLanes)));
  }
  // The bounds of tiles of keys.
  per_thread += static_cast<double>(CeilDiv(extents.key_length, kKeysPerTile)) * sizeof(KeyBound) / sizeof(float);
  // A row computed again in float64.
  per_thread += 2 * static_cast<double>(ExactRowsDoubles(extents.key_length, extents.head_dim, extents.value_dim));
  per_thread += static_cast<double>(ExactRowsFloats(extents.head_dim, extents.value_dim));
  // A tile's weights, and their mean over heads.
  if (extents.consumes_weights) {
    per_thread += 2 * static_cast<double>(std::min(kPanelRows, extents.rows)) * static_cast<double>(extents.key_length);
  }
  // The states of chunks computed side by side, which happens for few rows only. The last chunk of each sequence that a
  // thread computes may be short.
  double states = 0;
  if (has_chunks) {
    const std::int64_t threads = num_threads, longer_than_chunk = extents.key_length / (kKeyChunk + 1);
    const std::int64_t side_by_side = std::min({extents.sequences, threads, longer_than_chunk});
    const auto chunks = static_cast<double>(CeilDiv(extents.key_length, kKeyChunk) + side_by_side - 1);
    const auto chunked_rows = static_cast<double>(std::min(rows, kKeyChunk / 8));
    states = static_cast<double>(extents.kv_heads) * chunks * StateFloats(chunked_rows, extents.value_dim);
  }
  return sizeof(float) * (num_threads * per_thread + states) + num_threads * TopBytes<float>(extents);
}

// Scores of a tile's rows, and where weights are consumed those and their mean.
double DoubleBytes(const SdpaExtents& extents, int num_threads) {
  const auto rows = static_cast<double>(std::min(kDoubleRowsPerTile, extents.rows));
  const double copies = extents.consumes_weights ? 3 : 1;
  return num_threads * (sizeof(double) * (copies * rows * static_cast<double>(extents.key_length) + kFloatsBesides) +
                        TopBytes<double>(extents));
}

}  // namespace

double SdpaScratchBytes(const SdpaExtents& extents, int num_threads) {
  return extents.is_double ? DoubleBytes(extents, num_threads) : FloatBytes(extents, num_threads);
}

double ScratchBytes(const SdpaProblem& problem, int num_threads, bool consumes_weights, std::int64_t top_k) {
  const auto is_narrow = [](const TypedHeadsView& view) { return ElementSize(view.type) < 4; };
  return SdpaScratchBytes(
      {.rows = problem.query_length() * problem.group_size(),
       .kv_heads = problem.batch() * problem.num_kv_heads(),
       .key_length = problem.key_length(),
       .head_dim = problem.head_dim(),
       .value_dim = problem.value_dim(),
       .is_double = problem.is_double(),
       .has_narrow = is_narrow(problem.query()) || is_narrow(problem.key()) || is_narrow(problem.value()),
       .consumes_weights = consumes_weights,
       .top_k = top_k,
       .sequences = IsRagged(problem.options()) ? NumSequences(problem.options()) : 1},
      num_threads);
}

}  // namespace attend
