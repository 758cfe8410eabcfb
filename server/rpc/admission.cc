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

}  // namespace

double Admission::NowMs() { return std::chrono::duration<double, std::milli>(Clock::now().time_since_epoch()).count(); }

double Admission::LeftMs(Deadline deadline) {
  if (deadline == Deadline::max()) return HUGE_VAL;
  return std::chrono::duration<double, std::milli>(deadline - std::chrono::system_clock::now()).count();
}

absl::Status Admission::Check(const Request& request) {
  MutexLock lock(mu_);
  return Judge(request);
}

absl::Status Admission::Submit(const Request& request, Task task) {
  std::optional<Waiting> displaced;
  {
    MutexLock lock(mu_);
    if (absl::Status verdict = Judge(request); !verdict.ok()) return verdict;
    if (IsFull() && queue_.size() > 0) displaced = queue_.TakeFromLargest(MostBeside(request.account));
    if (displaced.has_value()) {
      ++spare_tickets_;
      ++counts_.dropped;
    }
    if (!SendTicket()) return QueueFull();
    const double expected_ms = ExpectedMs(request);
    const bool may_be_due = MayBeDue(request, expected_ms);
    queue_.Push(request.account, expected_ms,
                {std::move(task), request.deadline, request.account, request.undecoded_bytes}, NowMs());
    waiting_.store(static_cast<int>(queue_.size()), std::memory_order_relaxed);
    if (may_be_due) arrivals_.fetch_add(1, std::memory_order_relaxed);
    ++counts_.queued;
  }
  if (displaced.has_value()) Tell(*std::move(displaced));
  return absl::OkStatus();
}

bool Admission::SendTicket() {
  if (spare_tickets_ == 0) return executor_.Submit([this] { RunNext(); });
  --spare_tickets_;
  return true;
}

bool Admission::IsFull() const {
  return static_cast<int>(queue_.size()) + running_ >= max_queued_ + executor_.num_threads();
}

std::size_t Admission::MostBeside(const AccountRef& account) const {
  return std::max(Share(), queue_.CountOf(account.get()) + 1);
}

bool Admission::MayDisplace(const AccountRef& account) const {
  return account != nullptr && queue_.size() > Share() && queue_.HasLargerThan(MostBeside(account));
}

absl::Status Admission::Judge(const Request& request) {
  absl::Status verdict = Verdict(request);
  if (!verdict.ok() && request.account != nullptr) request.account->tenant->ChargeRefusal();
  return verdict;
}

absl::Status Admission::Verdict(const Request& request) {
  if (IsFull() && !MayDisplace(request.account)) return QueueFull();
  const double left_ms = LeftMs(request.deadline);
  if (left_ms == HUGE_VAL) return absl::OkStatus();
  const double least_ms = request.cost ? LeastMs(request.account, *request.cost) : 0;
  if (least_ms > left_ms * kHopeless) return TooShort(least_ms, left_ms);
  // A free thread takes it at once.
  if (static_cast<int>(queue_.size()) + running_ < executor_.num_threads()) return absl::OkStatus();
  const double wait_ms = WaitMs(request);
  const double own_ms = request.cost ? ModelOf(request.account).Milliseconds(*request.cost) : 0;
  if (wait_ms + own_ms <= left_ms * kPlannedShare) return absl::OkStatus();
  return Unreachable(request.account, wait_ms + own_ms);
}

double Admission::WaitMs(const Request& request) {
  const double threads = executor_.num_threads();
  const double backlog_ms = BacklogMs(request.account) / threads;
  const double soonest_ms = UntilInterruptionMs(request);
  if (std::isinf(soonest_ms)) return backlog_ms;
  const auto may_interrupt = [](const auto& next) { return IsShort(next.item.undecoded_bytes, next.expected_ms); };
  // What interrupts has the thread for half of the time at least.
  const double ahead_ms = 2 * queue_.AheadMs(request.account, NowMs(), may_interrupt) / threads;
  return std::min(backlog_ms, soonest_ms + ahead_ms);
}

absl::Status Admission::QueueFull() {
  ++counts_.refused;
  return BusyError(
      reason::kQueueFull,
      absl::StrCat("all compute threads are busy and ", max_queued_, " requests already wait (--max-queued-requests)"),
      RetryDelayMs(nullptr));
}

absl::Status Admission::Unreachable(const AccountRef& account, double wait_ms) {
  ++counts_.refused;
  return BusyError(reason::kDeadlineUnreachable,
                   absl::StrCat("with ", running_, running_ == 1 ? " request" : " requests", " computing and ",
                                queue_.size(), " waiting it would be done in about ", std::llround(wait_ms),
                                " ms, which is more than its deadline leaves"),
                   RetryDelayMs(account));
}

absl::Status Admission::TooShort(double least_ms, double left_ms) {
  ++counts_.refused;
  return WithDetails(absl::DeadlineExceededError(absl::StrFormat(
                         "the request needs at least %.1f ms on this server, idle, but its deadline leaves %.1f ms; "
                         "allow more time or send less",
                         least_ms / kHopeless, std::max(left_ms, 0.0))),
                     {.reason = reason::kDeadlineTooShort, .field = "", .metadata = {}});
}

double Admission::BacklogMs(const AccountRef& account) {
  const double now_ms = NowMs();
  return queue_.AheadMs(account, now_ms) + std::max(0.0, running_end_ms_ - running_ * now_ms);
}

double Admission::LeastMs(const AccountRef& account, const WorkCost& cost) const {
  return ModelOf(account).LeastMilliseconds(cost) / executor_.num_threads();
}

double Admission::ExpectedMs(const Request& request) const {
  // What callers say of themselves is no reason to refuse others.
  const bool is_known = request.cost.has_value() && request.undecoded_bytes == 0;
  return is_known ? ModelOf(request.account).Milliseconds(*request.cost) : queue_.MeanMs(request.account);
}

std::int64_t Admission::RetryDelayMs(const AccountRef& account) {
  return std::llround(std::clamp(BacklogMs(account) / executor_.num_threads(), kShortestRetryMs, kLongestRetryMs));
}

int Admission::outstanding() const {
  MutexLock lock(mu_);
  return static_cast<int>(queue_.size()) + running_;
}

Admission::Counts Admission::counts() const {
  MutexLock lock(mu_);
  return counts_;
}

double Admission::PredictedMs(const WorkCost& cost, std::string_view tenant) const {
  MutexLock lock(mu_);
  return models_.Of(tenant).Milliseconds(cost) / (cost.flops < kMinParallelFlops ? 1 : executor_.num_threads());
}

double Admission::WaitMs() const {
  MutexLock lock(mu_);
  if (static_cast<int>(queue_.size()) + running_ < executor_.num_threads()) return 0;
  return (queue_.waiting_ms() + std::max(0.0, running_end_ms_ - running_ * NowMs())) / executor_.num_threads();
}

}  // namespace attend::server
