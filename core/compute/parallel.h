// How a computation uses its context: loops that spread over threads when that pays.
#ifndef ATTEND_CORE_COMPUTE_PARALLEL_H_
#define ATTEND_CORE_COMPUTE_PARALLEL_H_

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/compute/compute.h"

namespace attend {

// Below this many operations, waking another thread (some 10 microseconds) costs more than it helps.
inline bool IsSmall(double flops) { return flops < 4e6; }

inline bool IsCancelled(const ComputeContext& context) {
  return context.cancelled != nullptr && context.cancelled->load(std::memory_order_relaxed);
}

inline int NumThreads(const ComputeContext& context) {
  return context.executor == nullptr ? 1 : context.executor->num_threads();
}

// body(i) for every i in [0, count), in any order, perhaps on several threads.
inline void ForEach(const ComputeContext& context, std::int64_t count, absl::FunctionRef<void(std::int64_t)> body) {
  if (context.executor != nullptr) {
    context.executor->ParallelFor(count, body);
  } else {
    for (std::int64_t i = 0; i < count; ++i) body(i);
  }
}

inline absl::Status CancelledStatus() { return absl::CancelledError("the computation was cancelled before its end"); }

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_PARALLEL_H_
