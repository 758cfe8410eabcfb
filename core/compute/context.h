// What a computation runs with, and loops that use several threads where that pays.
//
// All functions may be called concurrently.
#ifndef ATTEND_CORE_COMPUTE_CONTEXT_H_
#define ATTEND_CORE_COMPUTE_CONTEXT_H_

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/base/limits.h"
#include "core/kernels/fast_kernels.h"
#include "core/kernels/instruction_set.h"
#include "core/runtime/executor.h"

namespace attend {

// A place between two tiles of a computation where something else may run on the same thread.
// Thread-safe: a computation may run on several threads, each of which asks.
class TileBreak {
 public:
  virtual ~TileBreak() = default;
  // Called between tiles, every few milliseconds or oftener; must be cheap when there is nothing to do. May run for as
  // long as it likes, but must not use the same ComputeContext.
  virtual void Look() = 0;
};

// Non-owning.
struct ComputeContext {
  Executor* executor = nullptr;                  // Helpers for large problems. Null: the calling thread alone.
  const std::atomic<bool>* cancelled = nullptr;  // Read between tiles. Null: never cancelled.
  InstructionSet instruction_set = BestInstructionSet();
  // Those of `instruction_set` for problems of Precision::kFast; kNone computes them exactly.
  FastKernels fast_kernels = FastKernels::kNone;
  TileBreak* tile_break = nullptr;  // Asked between tiles. Null: nobody.
};

// `context` for a problem of `flops` floating-point operations: without helpers if it is too small for them.
inline ComputeContext ContextFor(const ComputeContext& context, double flops) {
  ComputeContext own = context;
  if (flops < kMinParallelFlops) own.executor = nullptr;
  return own;
}

// At the end of a computation, where it no longer lets others have the thread: the complete result is sent first.
inline bool WasCancelled(const ComputeContext& context) {
  return context.cancelled != nullptr && context.cancelled->load(std::memory_order_relaxed);
}

// Between tiles: lets others have the thread for a moment, then says whether to go on.
inline bool IsCancelled(const ComputeContext& context) {
  if (context.tile_break != nullptr) context.tile_break->Look();
  return WasCancelled(context);
}

inline absl::Status CancelledStatus() { return absl::CancelledError("the computation was cancelled before its end"); }

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

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_CONTEXT_H_
