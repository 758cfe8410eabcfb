// Notices that callers are refused for want of memory: then answers that nobody takes have to give theirs back sooner.
//
// Thread-compatible: one for each thread that ends such answers.
#ifndef ATTEND_SERVER_RPC_MEMORY_SHORTAGE_H_
#define ATTEND_SERVER_RPC_MEMORY_SHORTAGE_H_

#include <cstdint>
#include <utility>

#include "server/rpc/memory_budget.h"

namespace attend::server {

class MemoryShortage {
 public:
  // While memory is short, an answer that nobody takes ends after this part of the stalled answer timeout, whatever its
  // size.
  static constexpr int kImpatience = 6;

  // Null: memory is never short. `memory` must outlive the object.
  explicit MemoryShortage(const MemoryBudget* memory) : memory_(memory) {}

  // Whether somebody has been refused since the last look.
  bool Look() {
    if (memory_ == nullptr) return false;
    const std::int64_t refusals = memory_->refusals();
    return std::exchange(refusals_, refusals) != refusals;
  }

 private:
  const MemoryBudget* const memory_;
  std::int64_t refusals_ = 0;  // Of the budget's, at the last look.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_MEMORY_SHORTAGE_H_
