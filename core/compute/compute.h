// Computes attention. The only door to the kernels.
//
// A valid problem cannot fail, so the one error is CANCELLED. The result's bits depend on the problem alone: not on
// the number of threads, not on the batch entry's position, not on which instruction set with fused multiply-add runs.
//
// May be called concurrently; calls share nothing but the executor's threads.
#ifndef ATTEND_CORE_COMPUTE_COMPUTE_H_
#define ATTEND_CORE_COMPUTE_COMPUTE_H_

#include <atomic>

#include "absl/status/status.h"
#include "core/kernels/instruction_set.h"
#include "core/layer/attend_problem.h"
#include "core/problem/sdpa_problem.h"
#include "core/runtime/executor.h"

namespace attend {

// What a computation runs with. Non-owning.
struct ComputeContext {
  Executor* executor = nullptr;                  // Helpers for large problems. Null: the calling thread alone.
  const std::atomic<bool>* cancelled = nullptr;  // Looked at between tiles. Null: never cancelled.
  InstructionSet instruction_set = BestInstructionSet();
};

// Writes every output that `outputs` names. REQUIRES: the views in `outputs` have the shapes their comments state.
// Returns CANCELLED, with the outputs in an unspecified state, if the flag was raised before the end.
absl::Status ComputeSdpa(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);
absl::Status ComputeAttend(const AttendProblem& problem, const AttendOutputs& outputs, const ComputeContext& context);

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_COMPUTE_H_
