// Computes attention over embeddings: projections, norms, rotary embedding, scaled dot-product attention.
//
// May be called concurrently; calls share nothing but the executor's threads.
#ifndef ATTEND_CORE_LAYER_COMPUTE_ATTEND_H_
#define ATTEND_CORE_LAYER_COMPUTE_ATTEND_H_

#include "absl/status/status.h"
#include "core/compute/context.h"
#include "core/layer/attend_problem.h"

namespace attend {

// As ComputeSdpa (compute_sdpa.h): writes every output that `outputs` names. REQUIRES: the views in `outputs` have the
// shapes their comments state; where weights are packed only, the context has the instruction set that they are packed
// for. Returns CANCELLED, with the outputs in an unspecified state, if the flag was raised before the end.
absl::Status ComputeAttend(const AttendProblem& problem, const AttendOutputs& outputs, const ComputeContext& context);

// As FastKernelsOf of a SdpaProblem; of a layer the projections' weights must be BFLOAT16 too and their in_features
// even.
FastKernels FastKernelsOf(const AttendProblem& problem, FastKernels available);

// An upper bound of the bytes that computing it allocates beyond inputs and outputs, with `num_threads` threads;
// `consumes_weights` when averaged or top weights are wanted, of these `top_k` for a row. Pure.
double ScratchBytes(const AttendProblem& problem, int num_threads, bool consumes_weights, std::int64_t top_k = 0);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_COMPUTE_ATTEND_H_
