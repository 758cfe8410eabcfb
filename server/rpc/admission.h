// Admission control: bounds the work that waits, in number and in time, and says when to retry.
//
// A call asks Check before its payload is read, with what is known of it then. Later its job goes to the executor
// through Submit, which asks again, because calls that were let in together may still find the queue full, and because
// a decoded job knows what it costs. Once a compute thread has taken the task, it calls RunningTask::Begin, which
// asks for the last time.
//
// Time is predicted by a CostModel for each tenant. The queue is first in, first out for one tenant and fair between
// several (see FairQueue): nobody is let in who could not be done in time, so that under overload those inside are
// served within their deadlines and all others hear so at once. The verdicts:
//   - UNAVAILABLE, QUEUE_FULL: `max_queued` tasks wait already. A caller takes the place of the newest task of the
//     caller with the most, if that one has more than a quarter of all and, after that, still as many as the first;
//   - UNAVAILABLE, DEADLINE_UNREACHABLE: what is before it would take too long;
//   - DEADLINE_EXCEEDED, DEADLINE_TOO_SHORT: it would not be done in time on an idle server either.
// A wrong prediction must not refuse what is feasible: the last verdict is given when all threads together, at the best
// rate ever seen, would need kHopeless times as long; the second only when there is something before it, to a caller
// who may come again. A caller's estimate of its own cost can only ever refuse that caller.
//
// While a task computes, its thread may run one that waits and is short, of another tenant, between two tiles: when it
// is that tenant's turn as if the computing task ended now. That one is interrupted by none. So a long request delays
// other tenants by milliseconds, and no tenant by more than its part of the thread.
//
// Thread-safe. The lock is held for a few additions, and for a look at each tenant, or caller, that has tasks waiting.
#ifndef ATTEND_SERVER_RPC_ADMISSION_H_
#define ATTEND_SERVER_RPC_ADMISSION_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "core/base/mutex.h"
#include "core/compute/context.h"
#include "core/runtime/cpu.h"
#include "core/runtime/executor.h"
#include "server/identity/tenant.h"
#include "server/rpc/cost_model.h"
#include "server/rpc/fair_queue.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class Admission {
 public:
  // How many times too long the best case must be before a deadline counts as out of reach for an idle server.
  static constexpr double kHopeless = 4;
  // The part of the time left that may be planned with; the rest is for the way back and for what the model misses.
  static constexpr double kPlannedShare = 0.8;

  // The most that a task may take which interrupts another, in milliseconds: whoever comes next waits for it.
  static constexpr double kMostInterruptionMs = 15;
  // The most bytes of a request that is decoded while it interrupts another: a few milliseconds' work.
  static constexpr double kMostInterruptionBytes = 16 << 20;

  using Deadline = std::chrono::system_clock::time_point;  // max(): none.

  struct Request {
    Deadline deadline = Deadline::max();
    std::optional<WorkCost> cost = std::nullopt;  // As far as it is known; nothing: as its tenant's latest tasks.
    AccountRef account = nullptr;                 // Whose it is; null: of callers of whom nothing is known.
    // Bytes of a request whose cost is not known before they are decoded, whatever its caller says: then `cost` counts
    // for the verdict, and others wait as for its tenant's latest tasks.
    double undecoded_bytes = 0;
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

  class RunningTask;

 private:
  struct Waiting {
    absl::AnyInvocable<void(RunningTask&) &&> task;
    Deadline deadline;
    AccountRef account;
    double undecoded_bytes;
  };

 public:
  // A task while a compute thread has it. A task that never calls Begin counts as dropped.
  //
  // It is the TileBreak of its computation: between tiles, it may run another tenant's.
  class RunningTask final : public TileBreak {
   public:
    using Task = absl::AnyInvocable<void(RunningTask&) &&>;

    // OK, or why it must not run: UNAVAILABLE with reason QUEUE_FULL, when it lost its place to another caller's.
    const absl::Status& admitted() const { return admitted_; }
    // It will compute now, and it costs this much. Errors: those of admitted(); DEADLINE_EXCEEDED with reason
    // DEADLINE_TOO_SHORT; UNAVAILABLE with DEADLINE_UNREACHABLE when it would be stopped half-way while others wait.
    // REQUIRES: called at most once.
    absl::Status Begin(const WorkCost& cost);
    // Whether it costs too much for a task that interrupts another: then it has to wait, by PutBack in place of Begin.
    bool MustWait(const WorkCost& cost);
    // Waits, as `task`, before all others of its tenant; nothing else is called any more then. False when no thread
    // could be had for it: then it goes on. REQUIRES: MustWait(cost).
    bool PutBack(const WorkCost& cost, Task task);
    // Computing was stopped before its end.
    void Stopped() { stopped_ = true; }
    // How long it was interrupted, on the thread that runs it.
    Clock::duration interrupted() const { return Clock::duration(interrupted_.load(std::memory_order_relaxed)); }

    void Look() override;

    ~RunningTask() override;
    RunningTask(const RunningTask&) = delete;
    RunningTask& operator=(const RunningTask&) = delete;

   private:
    friend class Admission;
    // `interrupts`: the task that has the thread, or null.
    RunningTask(Admission& admission, RunningTask* interrupts) : admission_(admission), interrupts_(interrupts) {}

    // Also for a task that did not begin: what it did with the thread, decoding for the most part, took its time.
    void ChargeTenant(Clock::duration took, Clock::time_point now);

    Admission& admission_;
    RunningTask* const interrupts_;
    const std::thread::id thread_ = std::this_thread::get_id();
    const Clock::time_point start_ = Clock::now();
    std::atomic<Clock::rep> next_look_{0};
    std::atomic<std::uint32_t> seen_arrivals_{0};  // Admission::arrivals_ at the latest look.
    std::atomic<Clock::rep> interrupted_{0};       // Of `thread_`.
    std::chrono::nanoseconds cpu_interrupted_{0};  // The same, of processor time.
    // From here on set by Take, under the lock; without it until then, and in a task that was displaced.
    bool taken_ = false;
    std::chrono::nanoseconds cpu_start_{};
    absl::Status admitted_;
    Deadline deadline_ = Deadline::max();
    AccountRef account_;
    FairQueue<Waiting>::Charge charge_;
    double expected_end_ms_ = 0;  // On the monotonic clock.
    WorkCost cost_;
    bool alone_on_its_core_ = false;  // All threads had tasks of their own, so that none helped another.
    bool begun_ = false;
    bool stopped_ = false;
    bool put_back_ = false;
  };

  using Task = RunningTask::Task;

  // `executor` must outlive this object; `max_queued` is the bound of waiting tasks, and the executor's is no less.
  // (Where tasks of several tenants come, it needs one more place for each of its threads.) `rates`: see MeasureRates.
  Admission(Executor& executor, int max_queued, const ComputeRates& rates = {})
      : executor_(executor), max_queued_(max_queued), models_(rates) {}

  // Waits until no compute thread can come for a task any more. REQUIRES: no task waits or runs.
  ~Admission();

  // Whether a call may come in now. Errors: as above, UNAVAILABLE with a retry delay.
  absl::Status Check(const Request& request);
  absl::Status Check(Deadline deadline) { return Check(Request{.deadline = deadline}); }

  // Hands `task` to the executor. Errors: as Check; the task is not run. It may be run at once, on the thread of
  // another caller's Submit, if it loses its place: see RunningTask::admitted.
  absl::Status Submit(const Request& request, Task task);

  // Tasks handed to the executor and not finished.
  int outstanding() const;
  Counts counts() const;
  // How long work of a tenant that costs this much takes on an otherwise idle server, as far as is known.
  double PredictedMs(const WorkCost& cost, std::string_view tenant = kSharedTenant) const;
  // How long a task that came now would wait for a compute thread; of a caller of whom nothing is known.
  double WaitMs() const;

  Executor& executor() const { return executor_; }

 private:
  // What the executor runs: the next task, if one is left.
  void RunNext();
  // What was taken off the queue, for `running`.
  std::optional<Waiting> Take(RunningTask& running, std::optional<FairQueue<Waiting>::Taken> taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Runs a task in place of `running`, if it may interrupt that one. Returns whether it did.
  bool Interrupt(RunningTask& running) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether such a task is, as far as is known, short enough to interrupt another tenant's.
  static bool IsShort(double undecoded_bytes, double expected_ms);
  static bool MayInterrupt(const RunningTask& running, const FairQueue<Waiting>::Next& next, double now_ms);
  // Whether a task that is pushed now is the next of its tenant and may interrupt one that computes.
  bool MayBeDue(const Request& request, double expected_ms) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // How long until `request`, as far as is known, would interrupt a task that computes; infinite when it would not.
  double UntilInterruptionMs(const Request& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double WaitMs(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Has a task learn that it lost its place.
  void Tell(Waiting displaced) ABSL_LOCKS_EXCLUDED(mu_);
  // Has a compute thread come for each task. False when the executor takes no more.
  bool SendTicket() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::size_t Share() const { return static_cast<std::size_t>(std::max(max_queued_ / 4, 1)); }
  // A caller with more tasks waiting than this gives up the place of its newest to `account`.
  std::size_t MostBeside(const AccountRef& account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MayDisplace(const AccountRef& account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  static double NowMs();                    // On the monotonic clock.
  static double LeftMs(Deadline deadline);  // Until then; infinite when there is none.

  static std::string_view TenantOf(const AccountRef& account) {
    return account == nullptr ? std::string_view(kSharedTenant) : std::string_view(account->tenant->name());
  }
  const CostModel& ModelOf(const AccountRef& account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return models_.Of(TenantOf(account));
  }

  // As Verdict, and the tenant of a refused request is charged for the refusal.
  absl::Status Judge(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Verdict(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status QueueFull() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Unreachable(const AccountRef& account, double wait_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status TooShort(double least_ms, double left_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What has to be computed before a task of `account` that came now, on one thread.
  double BacklogMs(const AccountRef& account) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double LeastMs(const AccountRef& account, const WorkCost& cost) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double ExpectedMs(const Request& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::int64_t RetryDelayMs(const AccountRef& account) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Executor& executor_;
  const int max_queued_;
  mutable Mutex mu_;
  TenantCostModels models_ ABSL_GUARDED_BY(mu_);
  Counts counts_ ABSL_GUARDED_BY(mu_);
  FairQueue<Waiting> queue_ ABSL_GUARDED_BY(mu_);
  std::atomic<int> waiting_{0};                 // The queue's size, for a look without the lock.
  std::atomic<std::uint32_t> arrivals_{0};      // Of tasks that may be due at once, for looks before their time.
  int spare_tickets_ ABSL_GUARDED_BY(mu_) = 0;  // Of tasks that others took or displaced.
  std::vector<const RunningTask*> computing_ ABSL_GUARDED_BY(mu_);  // Begun, and interrupting none.
  int running_ ABSL_GUARDED_BY(mu_) = 0;                            // Those that interrupt another do not count.
  double running_end_ms_ ABSL_GUARDED_BY(mu_) = 0;                  // The sum of the expected ends of those that run.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_ADMISSION_H_
