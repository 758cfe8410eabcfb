// Translates a problem for the kernels: the rules of one key/value head, its query rows, and their panels.
//
// The query rows of one batch entry and key/value head are numbered r = t * G + g, with t the query's position and g
// the head within its group of G: neighbours share keys and values, and see nearly the same ones.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CORE_COMPUTE_ROW_PANELS_H_
#define ATTEND_CORE_COMPUTE_ROW_PANELS_H_

#include <algorithm>
#include <cstdint>

#include "core/kernels/double_kernels.h"
#include "core/kernels/kernel_table.h"
#include "core/problem/sdpa_problem.h"

namespace attend {

// One batch entry and key/value head.
struct KvHead {
  std::int64_t batch = 0;
  std::int64_t head = 0;
};

// Heads that take turns where they lie side by side in memory (compute_sdpa.cc), at most: a thread then has the memory
// of so many groups of few rows.
inline constexpr std::int64_t kMaxHeadsInTurns = 8;

// Whether there are more keys and values than caches hold.
bool IsBeyondCaches(const SdpaProblem& problem);

// REQUIRES: !problem.is_double().
AttentionTask MakeTask(const SdpaProblem& problem, KvHead kv);

// Writes rows [first, first + count) of `kv` to `rows`. Queries of 16 bits are left out, and so are the places of
// 16-bit outputs: they need memory to be widened to or narrowed from.
void MakeRows(const SdpaProblem& problem, const SdpaOutputs& outputs, KvHead kv, std::int64_t first, std::int64_t count,
              QueryRow* rows);

// The same in float64: the rules of batch entry `batch`, and those of query `query` of query head `head`. Tensors and
// outputs are left out.
DoubleTask MakeDoubleTask(const SdpaProblem& problem, std::int64_t batch);
DoubleRow MakeDoubleRow(const SdpaProblem& problem, std::int64_t batch, std::int64_t head, std::int64_t query);

// Which query and head a row of a key/value head belongs to.
struct RowCoordinates {
  std::int64_t query = 0;
  std::int64_t head = 0;  // Among all query heads.
};
inline RowCoordinates CoordinatesOfRow(const SdpaProblem& problem, KvHead kv, std::int64_t row) {
  const std::int64_t group = problem.group_size();
  return {row / group, kv.head * group + row % group};
}

// How many rows one key/value head has.
inline std::int64_t RowsPerKvHead(const SdpaProblem& problem) { return problem.query_length() * problem.group_size(); }

// Whether `num_rows` rows of a key/value head are so few that keys in lanes suit them best: as many as a vector of
// queries would hold, in several panels, because a vector alone leaves the other kernels waiting for memory.
inline bool AreFewRows(const KernelTable& table, std::int64_t num_rows) {
  return num_rows <= std::max(table.decode.max_rows, table.prefill.row_multiple);
}

// Which kernels suit `num_rows` rows.
inline const RowKernels& KernelsForRows(const KernelTable& table, std::int64_t num_rows) {
  return AreFewRows(table, num_rows) ? table.decode : table.prefill;
}

// `num_rows` rows cut into as few panels as possible, all nearly the same size and whole multiples of the kernels' row
// multiple but for the last. How rows are cut does not influence results.
class PanelCut {
 public:
  PanelCut(const RowKernels& kernels, std::int64_t num_rows);
  std::int64_t num_panels() const { return num_panels_; }
  std::int64_t First(std::int64_t panel) const;  // First(num_panels()) is the number of rows.

 private:
  std::int64_t num_rows_;
  std::int64_t multiple_;
  std::int64_t units_;  // Multiples, the last perhaps not full.
  std::int64_t num_panels_;
};

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_ROW_PANELS_H_
