#include "core/attention/scratch_bytes.h"

#include <algorithm>

#include "core/kernels/kernel_table.h"

namespace attend {
namespace {

// Of the widest instruction set.
constexpr std::int64_t kPanelRows = 48;
constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kPanelsPerGroup = 4;
// Rounding to cache lines, and the small parts of a panel: maximum, sum, masks.
constexpr double kFloatsBesides = 8192;

}  // namespace

double SdpaScratchBytes(const SdpaExtents& extents, int num_threads, bool averages_weights) {
  const auto rows =
      static_cast<double>(std::min((extents.rows + kLanes - 1) / kLanes * kLanes, kPanelRows * kPanelsPerGroup));
  const auto head_dim = static_cast<double>(extents.head_dim);
  const auto state = static_cast<double>(extents.value_dim + 2);
  // Packed queries, the states of all keys and of one chunk, and a block of scores per thread.
  double per_thread = rows * (head_dim + 2 * state) + static_cast<double>(kKeyBlock + 1) * kPanelRows + kFloatsBesides;
  if (averages_weights) {
    per_thread += static_cast<double>(std::min(kPanelRows, extents.rows)) * static_cast<double>(extents.key_length);
  }
  // The states of chunks computed side by side, which happens for few rows only.
  const std::int64_t num_chunks = (extents.key_length + kKeyChunk - 1) / kKeyChunk;
  const auto chunks = static_cast<double>(num_chunks);
  const auto chunked_rows = std::min(rows, static_cast<double>(kKeyChunk) / 8);
  const double states = chunks > 1 ? static_cast<double>(extents.kv_heads) * chunks * chunked_rows * state : 0;
  return sizeof(float) * (num_threads * per_thread + states);
}

double ProjectionScratchBytes(std::int64_t in_features, int num_threads) {
  const double per_thread = static_cast<double>(in_features + kPanelRows) * kPanelRows;
  return sizeof(float) * num_threads * per_thread;
}

}  // namespace attend
