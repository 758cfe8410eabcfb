// Computes scaled dot-product attention.
//
// A valid problem cannot fail, so the one error is CANCELLED. The result's bits depend on the problem alone: not on
// the number of threads, not on the batch entry's index, not on which instruction set with fused multiply-add runs.
//
// May be called concurrently; calls share nothing but the executor's threads.
#ifndef ATTEND_CORE_COMPUTE_COMPUTE_SDPA_H_
#define ATTEND_CORE_COMPUTE_COMPUTE_SDPA_H_

#include "absl/status/status.h"
#include "core/compute/context.h"
#include "core/problem/sdpa_problem.h"

namespace attend {

// Writes every output that `outputs` names. REQUIRES: the views in `outputs` have the shapes their comments state.
// Returns CANCELLED, with the outputs in an unspecified state, if the flag was raised before the end.
absl::Status ComputeSdpa(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

// The cases that ComputeSdpa delegates. For core/compute alone.
namespace compute_internal {

// REQUIRES: problem.is_double().
absl::Status ComputeDouble(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

// Computes each sequence of a ragged batch (sequences.h) as a problem of its own, so that it has the bits that it would
// have alone. Tensors with a column for each key ([.., T, S]: mask, bias, attention weights, scores) have as many
// columns as the longest sequence has keys; column j is key j of the row's own sequence. REQUIRES: the problem is
// ragged.
absl::Status ComputeRagged(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

}  // namespace compute_internal
}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_COMPUTE_SDPA_H_
