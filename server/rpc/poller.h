// A completion queue and the two threads that take events off it.
//
// The first thread does the work. gRPC reads a connection for as long as it finds bytes there, inside the question for
// the next event, so that a caller who never stops sending occupies the thread, and every call of the queue waits. The
// second thread looks now and then whether the first is using the processor inside one such question, and then takes
// events in its place until the first is back. It does not wait in gRPC at other times, because gRPC 1.51 passes the
// turn to wait from thread to thread with each event: on one core a small call would cost at least a third more.
//
// Events are handled one after the other, with the queue's lock held: what a handler touches needs no other. Two events
// of one call may be handled in another order than gRPC gave them.
//
// Thread-safe, except for what is said below.
#ifndef ATTEND_SERVER_RPC_POLLER_H_
#define ATTEND_SERVER_RPC_POLLER_H_

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "core/base/mutex.h"
#include "server/base/limits.h"
#include "server/rpc/call.h"
#include "server/rpc/call_watch.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class Poller {
 public:
  struct Options {
    // See CallWatch, also for `memory`, which must outlive the poller.
    CallLimits calls;
    const MemoryBudget* memory = nullptr;
    // Told how long an event waited to be handled, on a thread of the poller, after each MeasureDelay. Empty: nobody.
    std::function<void(Clock::duration)> on_delay;
    // Told now and then while the first thread works, on the second: each 10 ms while it is busy, and when the second
    // begins to stand in. Empty: nobody.
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

  // How often the first thread has asked gRPC for an event: at least once a second, unless it is kept. Any thread.
  std::uint64_t questions() const { return questions_.load(std::memory_order_relaxed); }

  // Whether the first is kept, so that the second takes events in its place. Any thread.
  bool stands_in() const { return stands_in_.load(std::memory_order_relaxed); }

  // Processor time that its threads have used. REQUIRES: between Start and Shutdown.
  std::chrono::nanoseconds UsedTime();

  // The calls that have arrived and not ended. Any thread; `use` must be quick, because no event is handled meanwhile.
  void ForEachCall(absl::FunctionRef<void(const Call&)> use) ABSL_LOCKS_EXCLUDED(mu_);

  // Of those who handle an event, which is with the lock held:

  CallWatch& watch() { return watch_; }
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

  // Waits for an event, or not at all when somebody waits for a moment without any, and handles it. False when there
  // will be none.
  bool TakeEvent(Turn& turn) ABSL_LOCKS_EXCLUDED(mu_);
  void LookAtClock(Turn& turn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Handle(void* tag, bool ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnProbe();

  void RunFirst();
  void RunSecond() ABSL_LOCKS_EXCLUDED(mu_, end_mu_);
  // Takes events for as long as the first thread is at its question number `kept_at`. False: there will be none.
  bool StandIn(std::uint64_t kept_at) ABSL_LOCKS_EXCLUDED(mu_);
  // False when Shutdown was called.
  bool SleepFor(std::chrono::milliseconds time) ABSL_LOCKS_EXCLUDED(end_mu_);

  const std::function<void(Clock::duration)> on_delay_;
  const std::function<void()> on_busy_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::thread first_;
  std::thread second_;
  std::atomic<std::uint64_t> questions_{0};  // That the first thread has asked; written by it alone.

  std::atomic<bool> stands_in_{false};  // Written by the second alone.

  // Held while an event is handled. What handlers touch is not annotated, because they are virtual.
  Mutex mu_;
  CallWatch watch_;
  Clock::time_point next_look_ = Clock::now() + CallWatch::kInterval;
  std::vector<CallRef> wait_for_idle_;  // Who asked for a moment without events,
  int events_waited_ = 0;               // and the events since the first of them did.

  // An event that measures how long one waits here.
  std::unique_ptr<grpc::Alarm> probe_;  // Touched by MeasureDelay alone, as the next.
  std::uint64_t probes_set_ = 0;
  std::atomic<std::uint64_t> probes_handled_{0};
  std::atomic<bool> probe_pending_{false};
  Clock::time_point probe_set_;  // Of whoever set probe_pending_, then of who handles the event until it clears it.

  Mutex end_mu_;
  CondVar ended_;
  bool ends_ ABSL_GUARDED_BY(end_mu_) = false;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_POLLER_H_
