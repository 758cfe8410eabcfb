#include "server/rpc/admission.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/limits.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// A caller told to wait less would only knock again at a full queue; more, and the queue stands empty.
constexpr double kShortestRetryMs = 5.0;
constexpr double kLongestRetryMs = 5000.0;
// The weight of the newest task in the moving average: about the last ten tasks count.
constexpr double kAverageWeight = 0.1;

double Milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

double NowMs() { return Milliseconds(Clock::now().time_since_epoch()); }

// What is left until the deadline; infinite when there is none.
double LeftMs(Admission::Deadline deadline) {
  if (deadline == Admission::Deadline::max()) return HUGE_VAL;
  return std::chrono::duration<double, std::milli>(deadline - std::chrono::system_clock::now()).count();
}

}  // namespace

Admission::RunningTask::RunningTask(Admission& admission, Deadline deadline, double expected_ms)
    : admission_(admission), deadline_(deadline), expected_end_ms_(NowMs() + expected_ms) {
  MutexLock lock(admission_.mu_);
  admission_.Leave(expected_ms);
  ++admission_.running_;
  admission_.running_end_ms_ += expected_end_ms_;
}

absl::Status Admission::RunningTask::Begin(const WorkCost& cost) {
  MutexLock lock(admission_.mu_);
  const double left_ms = LeftMs(deadline_);
  const double expected_ms = admission_.model_.Milliseconds(cost);
  absl::Status verdict;
  if (admission_.LeastMs(cost) > left_ms * kHopeless) {
    verdict = admission_.TooShort(admission_.LeastMs(cost), left_ms);
  } else if (admission_.waiting_ > 0 && expected_ms > left_ms) {
    verdict = admission_.Unreachable(expected_ms);
  }
  if (!verdict.ok()) return verdict;
  begun_ = true;
  cost_ = cost;
  ++admission_.counts_.started;
  alone_on_its_core_ = admission_.running_ >= admission_.executor_.num_threads();
  const double end_ms = NowMs() + expected_ms;
  admission_.running_end_ms_ += end_ms - expected_end_ms_;
  expected_end_ms_ = end_ms;
  return verdict;
}

Admission::RunningTask::~RunningTask() {
  MutexLock lock(admission_.mu_);
  const bool alone = alone_on_its_core_ && admission_.running_ >= admission_.executor_.num_threads();
  admission_.running_end_ms_ = --admission_.running_ == 0 ? 0 : admission_.running_end_ms_ - expected_end_ms_;
  if (!begun_) {
    ++admission_.counts_.dropped;
  } else if (stopped_) {
    ++admission_.counts_.stopped;
  } else {
    ++admission_.counts_.finished;
    const double took_ms = Milliseconds(Clock::now() - start_);
    admission_.mean_task_ms_ += kAverageWeight * (took_ms - admission_.mean_task_ms_);
    if (alone) admission_.model_.Observe(cost_, took_ms);
  }
}

absl::Status Admission::Check(const Request& request) {
  MutexLock lock(mu_);
  return Verdict(request);
}

absl::Status Admission::Submit(const Request& request, Task task) {
  double expected_ms = 0;
  {
    MutexLock lock(mu_);
    if (absl::Status verdict = Verdict(request); !verdict.ok()) return verdict;
    expected_ms = ExpectedMs(request);
    ++waiting_;
    waiting_ms_ += expected_ms;
    ++counts_.queued;
  }
  const bool submitted =
      executor_.Submit([this, task = std::move(task), deadline = request.deadline, expected_ms]() mutable {
        RunningTask running(*this, deadline, expected_ms);
        std::move(task)(running);  // What it owns, maybe the last reference to its call, outlives `running`.
      });
  if (submitted) return absl::OkStatus();
  MutexLock lock(mu_);
  Leave(expected_ms);
  --counts_.queued;
  return QueueFull();
}

absl::Status Admission::Verdict(const Request& request) {
  if (waiting_ + running_ >= max_queued_ + executor_.num_threads()) return QueueFull();
  const double left_ms = LeftMs(request.deadline);
  if (left_ms == HUGE_VAL) return absl::OkStatus();
  if (request.cost && LeastMs(*request.cost) > left_ms * kHopeless) return TooShort(LeastMs(*request.cost), left_ms);
  // A free thread takes it at once.
  if (waiting_ + running_ < executor_.num_threads()) return absl::OkStatus();
  const double wait_ms = BacklogMs() / executor_.num_threads();
  const double own_ms = request.cost ? model_.Milliseconds(*request.cost) : 0;
  if (wait_ms + own_ms <= left_ms * kPlannedShare) return absl::OkStatus();
  return Unreachable(wait_ms + own_ms);
}

absl::Status Admission::QueueFull() {
  ++counts_.refused;
  return BusyError(
      reason::kQueueFull,
      absl::StrCat("all compute threads are busy and ", max_queued_, " requests already wait (--max-queued-requests)"),
      RetryDelayMs());
}

absl::Status Admission::Unreachable(double wait_ms) {
  ++counts_.refused;
  return BusyError(reason::kDeadlineUnreachable,
                   absl::StrCat("with ", running_, running_ == 1 ? " request" : " requests", " computing and ",
                                waiting_, " waiting it would be done in about ", std::llround(wait_ms),
                                " ms, which is more than its deadline leaves"),
                   RetryDelayMs());
}

absl::Status Admission::TooShort(double least_ms, double left_ms) {
  ++counts_.refused;
  return WithDetails(absl::DeadlineExceededError(absl::StrFormat(
                         "the request needs at least %.1f ms on this server, idle, but its deadline leaves %.1f ms; "
                         "allow more time or send less",
                         least_ms / kHopeless, std::max(left_ms, 0.0))),
                     {.reason = reason::kDeadlineTooShort, .field = "", .metadata = {}});
}

double Admission::BacklogMs() const { return waiting_ms_ + std::max(0.0, running_end_ms_ - running_ * NowMs()); }

double Admission::LeastMs(const WorkCost& cost) const {
  return model_.LeastMilliseconds(cost) / executor_.num_threads();
}

double Admission::ExpectedMs(const Request& request) const {
  return request.cost ? model_.Milliseconds(*request.cost) : mean_task_ms_;
}

std::int64_t Admission::RetryDelayMs() const {
  return std::llround(std::clamp(BacklogMs() / executor_.num_threads(), kShortestRetryMs, kLongestRetryMs));
}

void Admission::Leave(double expected_ms) { waiting_ms_ = --waiting_ == 0 ? 0 : waiting_ms_ - expected_ms; }

int Admission::outstanding() const {
  MutexLock lock(mu_);
  return waiting_ + running_;
}

Admission::Counts Admission::counts() const {
  MutexLock lock(mu_);
  return counts_;
}

double Admission::PredictedMs(const WorkCost& cost) const {
  MutexLock lock(mu_);
  return model_.Milliseconds(cost) / (cost.flops < kMinParallelFlops ? 1 : executor_.num_threads());
}

double Admission::WaitMs() const {
  MutexLock lock(mu_);
  return waiting_ + running_ < executor_.num_threads() ? 0 : BacklogMs() / executor_.num_threads();
}

}  // namespace attend::server
