// Norms of projected queries and keys.
//
// Pure apart from the row they are handed; may be called concurrently on different rows.
#ifndef ATTEND_CORE_LAYER_HEAD_NORM_H_
#define ATTEND_CORE_LAYER_HEAD_NORM_H_

#include <cstdint>

#include "core/layer/attend_problem.h"

namespace attend {

// Normalises each of `rows` rows [norm.size], one after the other, in place. Computed in double and rounded to T once,
// whose bits are the same on every machine: a sum is eight partial sums, element i going to sum i modulo 8 in ascending
// order, which are then added pairwise in a fixed order. A row without variation (of kRms: of zeros) is NaN if epsilon
// is 0. REQUIRES: norm.weight is not null.
template <typename T>
void Normalize(const NormView& norm, std::int64_t rows, T* data);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_HEAD_NORM_H_
