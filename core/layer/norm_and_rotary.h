// What a layer does to its projected queries and keys before they meet: norms and rotary embedding.
//
// May be called concurrently on different memory.
#ifndef ATTEND_CORE_LAYER_NORM_AND_ROTARY_H_
#define ATTEND_CORE_LAYER_NORM_AND_ROTARY_H_

#include <cstdint>
#include <vector>

#include "core/compute/context.h"
#include "core/layer/attend_problem.h"

namespace attend {

// Normalises each of `rows` rows [norm.size], one after the other, in place. Computed in double and rounded to T once,
// whose bits are the same on every machine: a sum is eight partial sums, element i going to sum i modulo 8 in ascending
// order, which are then added pairwise in a fixed order. A row without variation (of kRms: of zeros) is NaN if epsilon
// is 0. REQUIRES: norm.weight is not null.
template <typename T>
void Normalize(const NormView& norm, std::int64_t rows, T* data);

// The tokens' positions for rotary embeddings, batch entries one after the other: those of AttentionOptions (within its
// sequence, in a ragged batch), after position_offset. A query before the first key has a negative position.
std::vector<std::int64_t> QueryPositions(const AttendProblem& problem);
std::vector<std::int64_t> KeyPositions(const AttendProblem& problem);

// Whether the layer has any of them.
inline bool HasNormOrRotary(const LayerView& layer) {
  return layer.query_norm.weight != nullptr || layer.key_norm.weight != nullptr || !layer.rotary.frequencies.empty();
}

// Applies the layer's norms and its rotary embedding, in the layer's order, in place to `query` [B * T, H * E] and
// `key` [B * S, K * E]; T is the type of the arithmetic. Stops early, with both unspecified, when `context` is
// cancelled. REQUIRES: the problem has a layer.
template <typename T>
void ApplyNormAndRotary(const AttendProblem& problem, const ComputeContext& context, T* query, T* key);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_NORM_AND_ROTARY_H_
