// Ends the calls of one poller that hold a place without making progress, so that no caller can fill a server
// by doing nothing.
//
//   a call whose first message has not come whole within `first_message_timeout` ends with DEADLINE_EXCEEDED
//   beyond `max_calls` the call that has waited longest for its first message ends with UNAVAILABLE, or, where none
//     waits, the oldest stream that gives way (MethodEntry::gives_way), of whichever poller, or else the new one; a
//     quarter beyond it new calls are cancelled, because a status waits for a peer that does not read
//   a response that is not taken is cancelled, and its memory is free: after `stalled_answer_timeout` and the time that
//     its bytes need at `min_bytes_per_second`; after a sixth of the timeout while others are refused for want of
//     memory
//
// gRPC 1.51 does not say how much of a message has come or gone, so that whole messages are what counts.
//
// Thread-compatible, but for what is said below: under its poller's lock, no timer of its own.
#ifndef ATTEND_SERVER_RPC_CALL_WATCH_H_
#define ATTEND_SERVER_RPC_CALL_WATCH_H_

#include <atomic>
#include <chrono>
#include <limits>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/base/limits.h"
#include "server/rpc/call.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/memory_shortage.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class CallWatch {
 public:
  // How often Look should be called.
  static constexpr std::chrono::milliseconds kInterval{1000};

  // `memory` is the budget whose refusals say that memory is short; null: it never is. Must outlive the object.
  CallWatch(const CallLimits& limits, const MemoryBudget* memory) : limits_(limits), shortage_(memory) {}

  // A call has arrived; `calls` have, with it, and have not ended. `made_room`: another has ended for it. Errors:
  // UNAVAILABLE with reason TOO_MANY_CALLS; the call is watched all the same until Remove.
  absl::Status Add(Call& call, int calls, bool made_room);
  // Its first message has come, or will not come.
  void GotMessage(Call& call);
  void Remove(Call& call);

  // Whether so many calls are a quarter too many.
  static bool IsFarBeyond(int max_calls, int calls);
  // Of several watches the one with the least has the call that gives way first: those that wait for their first
  // messages come before streams that have spoken.
  using Turn = Clock::rep;
  static constexpr Turn kNobodysTurn = std::numeric_limits<Turn>::max();
  // That of this one's first. Any thread.
  Turn first_turn() const { return first_turn_.load(std::memory_order_relaxed); }
  // Ends that call; false when none gives way.
  bool EndFirst();

  void ForEach(absl::FunctionRef<void(const Call&)> use) const;

  // Ends what has to end by now.
  void Look(Clock::time_point now);

 private:
  void Move(Call& call, CallList& to);
  void TellTurn();
  // The call that ends when there are too many; null when none may.
  Call* FirstToGiveWay();
  void GiveUp(Call& call, const absl::Status& status);
  void CancelStalled(const CallList& list, Clock::time_point now, bool memory_is_short) const;
  bool IsStalled(const Call& call, Clock::time_point now, bool memory_is_short) const;

  const CallLimits limits_;
  MemoryShortage shortage_;
  CallList silent_;  // Their first messages have not come.
  CallList held_;    // Streams that give way and have spoken.
  CallList others_;
  std::atomic<Turn> first_turn_{kNobodysTurn};
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CALL_WATCH_H_
