// What a layer does to its projected queries and keys before they meet: norms and rotary embedding.
//
// May be called concurrently, as compute.h.
#ifndef ATTEND_CORE_LAYER_FINISH_HEADS_H_
#define ATTEND_CORE_LAYER_FINISH_HEADS_H_

#include <cstdint>
#include <vector>

#include "core/compute/compute.h"
#include "core/layer/attend_problem.h"

namespace attend {

// Where the tokens stand for rotary embeddings, batch entries one after the other: what AttentionOptions says (within
// its sequence, in a ragged batch), after position_offset. May be negative for queries before the first key.
std::vector<std::int64_t> QueryPositions(const AttendProblem& problem);
std::vector<std::int64_t> KeyPositions(const AttendProblem& problem);

// Applies the layer's norms and its rotary embedding, in the layer's order, in place to `query` [B * T, H * E] and
// `key` [B * S, K * E]; T is the type of the arithmetic. Stops early, with both unspecified, when `context` is
// cancelled. REQUIRES: the problem has a layer.
template <typename T>
void FinishHeads(const AttendProblem& problem, const ComputeContext& context, T* query, T* key);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_FINISH_HEADS_H_
