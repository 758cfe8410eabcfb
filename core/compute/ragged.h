// Computes ragged batches (sequences.h).
//
// Each sequence is a problem of its own, computed by the same code, so it has the bits that it would have alone.
// Tensors that have a column for each key ([.., T, S]: mask, bias, attention weights, scores) have as many columns as
// the longest sequence has keys; column j is key j of the row's own sequence.
//
// May be called concurrently, as compute.h.
#ifndef ATTEND_CORE_COMPUTE_RAGGED_H_
#define ATTEND_CORE_COMPUTE_RAGGED_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/compute/compute.h"
#include "core/problem/sdpa_problem.h"

namespace attend {

// Sequence n as a problem by itself. Never an error for a valid ragged problem. REQUIRES: the sequence has queries.
absl::StatusOr<SdpaProblem> SequenceProblem(const SdpaProblem& problem, std::int64_t n);

// As ComputeSdpa. REQUIRES: the problem is ragged.
absl::Status ComputeRagged(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_RAGGED_H_
