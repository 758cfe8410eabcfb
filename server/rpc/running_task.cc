// Admission's tasks while a thread has them.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/rpc/admission.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// How often a computing task asks for the lock to see whether it is to be interrupted, if nothing has come that may.
constexpr Clock::duration kLookInterval = std::chrono::microseconds(200);

// What a caller that lost its place waits before it tries again.
constexpr std::int64_t kDisplacedRetryMs = 100;

double Milliseconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace

absl::Status Admission::RunningTask::Begin(const WorkCost& cost) {
  if (!admitted_.ok()) return admitted_;
  MutexLock lock(admission_.mu_);
  const double left_ms = LeftMs(deadline_);
  const double expected_ms = admission_.ModelOf(account_).Milliseconds(cost);
  const double least_ms = admission_.LeastMs(account_, cost);
  // What a free thread is about to take does not wait.
  const int tasks = static_cast<int>(admission_.queue_.size()) + admission_.running_;
  const bool others_wait = tasks > admission_.executor_.num_threads();
  absl::Status verdict;
  if (least_ms > left_ms * kHopeless) {
    verdict = admission_.TooShort(least_ms, left_ms);
  } else if (others_wait && expected_ms > left_ms) {
    verdict = admission_.Unreachable(account_, expected_ms);
  }
  if (!verdict.ok()) return verdict;
  begun_ = true;
  cost_ = cost;
  ++admission_.counts_.started;
  admission_.queue_.Expect(charge_, expected_ms);
  alone_on_its_core_ = admission_.running_ >= admission_.executor_.num_threads();
  if (interrupts_ != nullptr) return verdict;
  admission_.computing_.push_back(this);
  const double end_ms = NowMs() + expected_ms;
  admission_.running_end_ms_ += end_ms - expected_end_ms_;
  expected_end_ms_ = end_ms;
  return verdict;
}

bool Admission::RunningTask::MustWait(const WorkCost& cost) {
  if (interrupts_ == nullptr) return false;
  MutexLock lock(admission_.mu_);
  return admission_.ModelOf(account_).Milliseconds(cost) > kMostInterruptionMs;
}

bool Admission::RunningTask::PutBack(const WorkCost& cost, Task task) {
  MutexLock lock(admission_.mu_);
  // The one that it was queued with is spare, unless another task or an idle thread has had it.
  if (!admission_.SendTicket()) return false;
  const double expected_ms = admission_.ModelOf(account_).Milliseconds(cost);
  admission_.queue_.PutBack(charge_, account_, expected_ms, {std::move(task), deadline_, account_, 0});
  admission_.waiting_.store(static_cast<int>(admission_.queue_.size()), std::memory_order_relaxed);
  put_back_ = true;
  return true;
}

void Admission::RunningTask::ChargeTenant(Clock::duration took, Clock::time_point now) {
  if (account_ == nullptr) return;
  if (begun_) return account_->tenant->Computed(took, /*waited=*/true, now);
  account_->tenant->UsedThread(took, now);
}

Admission::RunningTask::~RunningTask() {
  if (!taken_) return;
  const Clock::time_point now = Clock::now();
  const Clock::duration took = now - start_ - interrupted();
  const double took_ms = Milliseconds(took);
  // Polling threads have the core first. What they do there for other tenants is not this one's.
  const double used_ms = Milliseconds(ThreadCpuTime() - cpu_start_ - cpu_interrupted_);
  const bool completed = begun_ && !stopped_;
  ChargeTenant(took, now);
  MutexLock lock(admission_.mu_);
  const bool alone = alone_on_its_core_ && admission_.running_ >= admission_.executor_.num_threads();
  admission_.queue_.Finish(charge_, used_ms, begun_ ? std::optional(took_ms) : std::nullopt, NowMs());
  if (interrupts_ == nullptr) {
    admission_.running_end_ms_ = --admission_.running_ == 0 ? 0 : admission_.running_end_ms_ - expected_end_ms_;
    auto& computing = admission_.computing_;
    computing.erase(std::remove(computing.begin(), computing.end(), this), computing.end());
  }
  if (put_back_) return;
  if (!begun_) {
    ++admission_.counts_.dropped;
  } else if (stopped_) {
    ++admission_.counts_.stopped;
  } else {
    ++admission_.counts_.finished;
  }
  if (completed && alone) admission_.models_.Observe(TenantOf(account_), cost_, took_ms);
}

void Admission::RunningTask::Look() {
  if (interrupts_ != nullptr || admission_.waiting_.load(std::memory_order_relaxed) == 0) return;
  const Clock::rep now = Clock::now().time_since_epoch().count();
  Clock::rep next = next_look_.load(std::memory_order_relaxed);
  const std::uint32_t arrivals = admission_.arrivals_.load(std::memory_order_relaxed);
  if (now < next && seen_arrivals_.load(std::memory_order_relaxed) == arrivals) return;
  if (!next_look_.compare_exchange_strong(next, now + kLookInterval.count(), std::memory_order_relaxed)) return;
  seen_arrivals_.store(arrivals, std::memory_order_relaxed);
  while (admission_.Interrupt(*this)) {
  }
}

bool Admission::IsShort(double undecoded_bytes, double expected_ms) {
  if (undecoded_bytes > 0) return undecoded_bytes <= kMostInterruptionBytes;
  return expected_ms <= kMostInterruptionMs;
}

bool Admission::MayInterrupt(const RunningTask& running, const FairQueue<Waiting>::Next& next, double now_ms) {
  if (running.charge_.is_of(next.tenant) || !IsShort(next.item.undecoded_bytes, next.expected_ms)) return false;
  return next.virtual_ms <= FairQueue<Waiting>::UsedMs(running.charge_, now_ms);
}

bool Admission::Interrupt(RunningTask& running) {
  const Clock::time_point start = Clock::now();
  std::chrono::nanoseconds cpu_start{};
  {
    std::optional<Waiting> next;  // What it owns, maybe the last reference to its call, outlives `nested`.
    RunningTask nested(*this, &running);
    {
      MutexLock lock(mu_);
      if (!running.begun_) return false;
      const double now_ms = NowMs();
      const auto may = [&running, now_ms](const auto& waiting) { return MayInterrupt(running, waiting, now_ms); };
      next = Take(nested, queue_.Pop(now_ms, may));
      if (!next.has_value()) return false;
      ++spare_tickets_;
      cpu_start = nested.cpu_start_;
      // Also on a thread that helps: the task's own may have nothing left but to wait for this one.
      queue_.Pause(running.charge_, now_ms);
    }
    std::move(next->task)(nested);
  }
  {
    const MutexLock lock(mu_);
    queue_.Resume(running.charge_, NowMs());
  }
  if (std::this_thread::get_id() == running.thread_) {
    running.interrupted_.fetch_add((Clock::now() - start).count(), std::memory_order_relaxed);
    running.cpu_interrupted_ += ThreadCpuTime() - cpu_start;
  }
  return true;
}

bool Admission::MayBeDue(const Request& request, double expected_ms) const {
  if (static_cast<int>(queue_.size()) + running_ < executor_.num_threads()) return false;  // A free thread takes it.
  if (!IsShort(request.undecoded_bytes, expected_ms) || queue_.HasWaiting(request.account)) return false;
  const Tenant* const tenant = request.account == nullptr ? nullptr : request.account->tenant.get();
  return std::any_of(computing_.begin(), computing_.end(),
                     [tenant](const RunningTask* task) { return !task->charge_.is_of(tenant); });
}

double Admission::UntilInterruptionMs(const Request& request) const {
  double soonest = HUGE_VAL;
  if (request.undecoded_bytes > kMostInterruptionBytes) return soonest;
  if (request.cost && ModelOf(request.account).Milliseconds(*request.cost) > kMostInterruptionMs) return soonest;
  const Tenant* const tenant = request.account == nullptr ? nullptr : request.account->tenant.get();
  const double now_ms = NowMs();
  for (const RunningTask* const task : computing_) {
    if (task->charge_.is_of(tenant)) continue;
    soonest = std::min(soonest, queue_.UntilTurnMs(request.account, task->charge_, now_ms));
  }
  return soonest;
}

std::optional<Admission::Waiting> Admission::Take(RunningTask& running,
                                                  std::optional<FairQueue<Waiting>::Taken> taken) {
  if (!taken.has_value()) return std::nullopt;
  waiting_.store(static_cast<int>(queue_.size()), std::memory_order_relaxed);
  running.taken_ = true;
  running.cpu_start_ = ThreadCpuTime();
  running.deadline_ = taken->item.deadline;
  running.account_ = taken->item.account;
  running.charge_ = taken->charge;
  if (running.interrupts_ == nullptr) {
    ++running_;
    running.expected_end_ms_ = NowMs() + taken->expected_ms;
    running_end_ms_ += running.expected_end_ms_;
  }
  return std::move(taken->item);
}

void Admission::RunNext() {
  std::optional<Waiting> next;  // What it owns, maybe the last reference to its call, outlives `running`.
  RunningTask running(*this, nullptr);
  {
    MutexLock lock(mu_);
    next = Take(running, queue_.Pop(NowMs()));
    if (!next.has_value()) {
      --spare_tickets_;
      return;
    }
  }
  std::move(next->task)(running);
}

Admission::~Admission() {
  for (;;) {
    {
      const MutexLock lock(mu_);
      if (spare_tickets_ == 0) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void Admission::Tell(Waiting displaced) {
  RunningTask nothing(*this, nullptr);
  nothing.admitted_ = BusyError(reason::kQueueFull,
                                "the queue is full, and of those that wait this caller has more than its part "
                                "(a quarter of --max-queued-requests), which others need",
                                kDisplacedRetryMs);
  std::move(displaced.task)(nothing);
}

}  // namespace attend::server
