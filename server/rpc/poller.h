// A completion queue, the thread that takes events off it, and those that stand in for it.
//
// The first thread does the work. gRPC reads a connection for as long as it finds bytes there, inside the question for
// the next event, so that a caller who never stops sending occupies the thread, and every call of the queue waits. The
// second thread looks now and then whether the first is using the processor inside one such question, and then takes
// events in its place until the first is back. Meanwhile the third looks at the second, and so on. They do not wait in
// gRPC at other times, because gRPC 1.51 passes the turn to wait from thread to thread with each event: on one core a
// small call would cost at least a third more.
//
// Events are handled one after the other, with the queue's lock held: what a handler touches needs no other. Two events
// of one call may be handled in another order than gRPC gave them.
//
// Thread-safe, except for what is said below.
#ifndef ATTEND_SERVER_RPC_POLLER_H_
#define ATTEND_SERVER_RPC_POLLER_H_

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "core/base/mutex.h"
#include "server/base/limits.h"
#include "server/rpc/call.h"
#include "server/rpc/call_watch.h"
#include "server/rpc/known_peers.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/reading_thread.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class Poller {
 public:
  // A connection that sends without end keeps one thread; while so many do, nobody else is served.
  static constexpr std::size_t kThreads = 12;

  struct Options {
    // See CallWatch, also for `memory`, which must outlive the poller.
    CallLimits calls;
    const MemoryBudget* memory = nullptr;
    // Asked for each call that has arrived, before it is handled and without any poller's lock: whether another has
    // ended for it. Empty: none does.
    std::function<bool()> make_room;
    // Told how long an event waited to be handled, on a thread of the poller, after each MeasureDelay. Empty: nobody.
    std::function<void(Clock::duration)> on_delay;
    // Told each 10 ms while the first thread is busy, on the second, and whenever a thread begins to stand in, on that
    // one. Empty: nobody.
    std::function<void()> on_busy;
  };

  Poller(std::unique_ptr<grpc::ServerCompletionQueue> queue, const Options& options);
  ~Poller() { Shutdown(); }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // Starts the threads. Called at most once.
  void Start();
  // Returns when every operation has ended and the threads with them. REQUIRES: nobody starts an operation any more.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_, end_mu_);

  grpc::ServerCompletionQueue& queue() { return *queue_; }

  // Puts an event on the queue, if none of these is waiting. REQUIRES: one thread at a time; not after Shutdown. The
  // number, from 1, of the first such event that is, or will be, behind all that wait now.
  std::uint64_t MeasureDelay();
  // How many of them were handled. Any thread.
  std::uint64_t measured_delays() const { return probes_handled_.load(std::memory_order_acquire); }
  // How many calls arrived while the last of those waited.
  std::int64_t arrived_meanwhile() const { return arrived_meanwhile_.load(std::memory_order_relaxed); }

  // The first, and those that stand in, in their order.
  const std::array<ReadingThread, kThreads>& threads() const { return threads_; }
  // Has the second thread look at the first at once, and not when it would. Any thread.
  void LookSoon() ABSL_LOCKS_EXCLUDED(end_mu_);
  // Whether one stands in. Any thread.
  bool stands_in() const { return standing_in_.load(std::memory_order_relaxed) != 0; }
  // How often each thread has asked gRPC for an event: at least once a second, unless it is kept. 0 for those that do
  // not stand in. Any thread.
  std::array<std::uint64_t, kThreads> Questions() const;

  // The calls that have arrived and not ended. Any thread; `use` must be quick, because no event is handled meanwhile.
  void ForEachCall(absl::FunctionRef<void(const Call&)> use) ABSL_LOCKS_EXCLUDED(mu_);

  // See CallWatch. Any thread; EndFirst: that holds no poller's lock.
  CallWatch::Turn first_turn() const { return watch_.first_turn(); }
  bool EndFirst() ABSL_LOCKS_EXCLUDED(mu_);

  // Of those who handle an event, which is with the lock held:

  CallWatch& watch() { return watch_; }
  KnownPeers& known_peers() { return known_peers_; }
  // Has the call's OnIdle called once there is a moment without events, or soon.
  void WakeWhenIdle(Call& call) { wait_for_idle_.emplace_back(call); }

 private:
  // What a thread keeps from one event to the next.
  struct Turn {
    std::chrono::milliseconds patience;  // How long it waits for an event.
    gpr_timespec until{};                // When that is over; looked up now and then.
    int events = 0;                      // Since it was.
    bool somebody_waits = false;         // For a moment without events.
  };

  // Has `thread` wait for an event, or not at all when somebody waits for a moment without any, and handles it. False
  // when there will be none.
  bool TakeEvent(ReadingThread& thread, Turn& turn) ABSL_LOCKS_EXCLUDED(mu_);
  void MakeRoomFor(const Call::Tag& event) const ABSL_LOCKS_EXCLUDED(mu_);
  void LookAtClock(Turn& turn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Handle(void* tag, bool ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnProbe();

  void RunFirst();
  // What the others do: look at the one before and stand in for it.
  void RunStandIn(std::size_t number) ABSL_LOCKS_EXCLUDED(mu_, end_mu_);
  // Takes events for as long as the one before is inside its question `kept_at`. False: there will be none.
  bool StandIn(std::size_t number, std::uint64_t kept_at) ABSL_LOCKS_EXCLUDED(mu_, end_mu_);
  bool StandsIn(std::size_t number) const { return (standing_in_.load(std::memory_order_relaxed) >> number & 1) != 0; }
  void SetStandsIn(std::size_t number, bool stands_in) ABSL_LOCKS_EXCLUDED(end_mu_);
  // Waits `pause`, from when the one before takes events. False when Shutdown was called.
  bool SleepBeforeLook(std::size_t number, std::chrono::milliseconds pause) ABSL_LOCKS_EXCLUDED(end_mu_);

  const std::function<bool()> make_room_;
  const std::function<void(Clock::duration)> on_delay_;
  const std::function<void()> on_busy_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::array<ReadingThread, kThreads> threads_;

  // Those that stand in: a bit for each thread. Written with end_mu_ held.
  std::atomic<std::uint32_t> standing_in_{0};

  // Held while an event is handled. What handlers touch is not annotated, because they are virtual.
  Mutex mu_;
  CallWatch watch_;
  KnownPeers known_peers_;
  Clock::time_point next_look_ = Clock::now() + CallWatch::kInterval;
  std::vector<CallRef> wait_for_idle_;  // Who asked for a moment without events,
  int events_waited_ = 0;               // and the events since the first of them did.

  // An event that measures how long one waits here.
  std::unique_ptr<grpc::Alarm> probe_;  // Touched by MeasureDelay alone, as the next.
  std::uint64_t probes_set_ = 0;
  std::atomic<std::uint64_t> probes_handled_{0};
  std::atomic<bool> probe_pending_{false};
  std::atomic<std::int64_t> arrived_{0};  // Calls. Written with mu_ held.
  std::int64_t arrived_before_ = 0;       // When the event was put there. Touched as probe_set_ is.
  std::atomic<std::int64_t> arrived_meanwhile_{0};
  Clock::time_point probe_set_;  // Of whoever set probe_pending_, then of who handles the event until it clears it.

  Mutex end_mu_;
  std::array<CondVar, kThreads> wake_;  // Of each: the one before stands in, or all end.
  bool ends_ ABSL_GUARDED_BY(end_mu_) = false;
  bool looks_soon_ ABSL_GUARDED_BY(end_mu_) = false;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_POLLER_H_
