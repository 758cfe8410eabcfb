// Admission control: bounds the work that waits, in number and in time, and says when to retry.
//
// A call asks Check before its payload is read, with what is known of it then. Later its job goes to the executor
// through Submit, which asks again, because calls that were let in together may still find the queue full, and because
// a decoded job knows what it costs. Once a compute thread has taken the task, it calls RunningTask::Begin, which
// asks for the last time.
//
// Time is predicted by a CostModel. The queue is first in, first out: nobody is let in who could not be done in time,
// so that under overload those inside are served within their deadlines and all others hear so at once. The verdicts:
//   - UNAVAILABLE, QUEUE_FULL: `max_queued` tasks wait already;
//   - UNAVAILABLE, DEADLINE_UNREACHABLE: what is before it would take too long;
//   - DEADLINE_EXCEEDED, DEADLINE_TOO_SHORT: it would not be done in time on an idle server either.
// A wrong prediction must not refuse what is feasible: the last verdict is given when all threads together, at the best
// rate ever seen, would need kHopeless times as long; the second only when there is something before it, to a caller
// who may come again. A caller's estimate of its own cost can only ever refuse that caller.
//
// Thread-safe. The lock is held for a few additions.
#ifndef ATTEND_SERVER_RPC_ADMISSION_H_
#define ATTEND_SERVER_RPC_ADMISSION_H_

#include <chrono>
#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "core/base/mutex.h"
#include "core/runtime/executor.h"
#include "server/rpc/cost_model.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class Admission {
 public:
  // How many times too long the best case must be before a deadline counts as out of reach for an idle server.
  static constexpr double kHopeless = 4;
  // The part of the time left that may be planned with; the rest is for the way back and for what the model misses.
  static constexpr double kPlannedShare = 0.8;

  using Deadline = std::chrono::system_clock::time_point;  // max(): none.

  struct Request {
    Deadline deadline = Deadline::max();
    std::optional<WorkCost> cost = std::nullopt;  // As far as it is known; nothing: as the latest tasks.
  };

  // What became of all tasks so far; those not in the last three wait or run.
  struct Counts {
    std::int64_t refused = 0;   // By Check, Submit or Begin.
    std::int64_t queued = 0;    // Let in by Submit.
    std::int64_t started = 0;   // Began to compute.
    std::int64_t finished = 0;  // Computed to the end,
    std::int64_t stopped = 0;   // or stopped while computing, by their caller or deadline,
    std::int64_t dropped = 0;   // or never started: gone, late, or in error when a thread took them.
  };

  // A task while a compute thread has it. A task that never calls Begin counts as dropped.
  class RunningTask {
   public:
    // It will compute now, and it costs this much. Errors: DEADLINE_EXCEEDED with reason DEADLINE_TOO_SHORT;
    // UNAVAILABLE with DEADLINE_UNREACHABLE when it would be stopped half-way while others wait. REQUIRES: called at
    // most once.
    absl::Status Begin(const WorkCost& cost);
    // Computing was stopped before its end.
    void Stopped() { stopped_ = true; }

    RunningTask(const RunningTask&) = delete;
    RunningTask& operator=(const RunningTask&) = delete;

   private:
    friend class Admission;
    RunningTask(Admission& admission, Deadline deadline, double expected_ms);
    ~RunningTask();

    Admission& admission_;
    const Deadline deadline_;
    const Clock::time_point start_ = Clock::now();
    double expected_end_ms_;  // On the monotonic clock.
    WorkCost cost_;
    bool alone_on_its_core_ = false;  // All threads had tasks of their own, so that none helped another.
    bool begun_ = false;
    bool stopped_ = false;
  };

  using Task = absl::AnyInvocable<void(RunningTask&) &&>;

  // `executor` must outlive this object; `max_queued` is its bound of waiting tasks. `rates`: see MeasureRates.
  Admission(Executor& executor, int max_queued, const ComputeRates& rates = {})
      : executor_(executor), max_queued_(max_queued), model_(rates) {}

  // Whether a call may come in now. Errors: as above, UNAVAILABLE with a retry delay.
  absl::Status Check(const Request& request);
  absl::Status Check(Deadline deadline) { return Check(Request{.deadline = deadline}); }

  // Hands `task` to the executor. Errors: as Check; the task is not run.
  absl::Status Submit(const Request& request, Task task);

  // Tasks handed to the executor and not finished.
  int outstanding() const;
  Counts counts() const;
  // How long work that costs this much takes on an otherwise idle server, as far as is known.
  double PredictedMs(const WorkCost& cost) const;
  // How long a task that came now would wait for a compute thread.
  double WaitMs() const;

  Executor& executor() const { return executor_; }

 private:
  absl::Status Verdict(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status QueueFull() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Unreachable(double wait_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status TooShort(double least_ms, double left_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double BacklogMs() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double LeastMs(const WorkCost& cost) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double ExpectedMs(const Request& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::int64_t RetryDelayMs() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave(double expected_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Executor& executor_;
  const int max_queued_;
  mutable Mutex mu_;
  CostModel model_ ABSL_GUARDED_BY(mu_);
  Counts counts_ ABSL_GUARDED_BY(mu_);
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
  int running_ ABSL_GUARDED_BY(mu_) = 0;
  double waiting_ms_ ABSL_GUARDED_BY(mu_) = 0;      // Expected of those that wait, on one thread.
  double running_end_ms_ ABSL_GUARDED_BY(mu_) = 0;  // The sum of the expected ends of those that run.
  double mean_task_ms_ ABSL_GUARDED_BY(mu_) = 1;    // Moving average of tasks that were computed.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_ADMISSION_H_
