#include "server/rpc/admission.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/codec/status.h"

namespace attend::server {
namespace {

// A caller told to wait less would only knock again at a full queue; more, and the queue stands empty.
constexpr double kShortestRetryMs = 5.0;
constexpr double kLongestRetryMs = 5000.0;
// The weight of the newest task in the moving average: about the last ten tasks count.
constexpr double kAverageWeight = 0.1;

}  // namespace

absl::Status Admission::Check(std::chrono::system_clock::time_point deadline) const {
  const int tasks = outstanding();
  if (tasks >= capacity_) return QueueFull();
  const int waiting = tasks - executor_.num_threads();
  if (waiting <= 0 || deadline == std::chrono::system_clock::time_point::max()) return absl::OkStatus();
  const std::chrono::duration<double, std::milli> left = deadline - std::chrono::system_clock::now();
  const double wait_ms = DurationMs(waiting);
  if (wait_ms <= left.count()) return absl::OkStatus();
  return BusyError("DEADLINE_UNREACHABLE",
                   absl::StrCat("the queue is ", waiting, waiting == 1 ? " request" : " requests", " long, about ",
                                std::llround(wait_ms), " ms, which is more than its deadline leaves"),
                   RetryDelayMs());
}

absl::Status Admission::Submit(absl::AnyInvocable<void() &&> task) {
  outstanding_.fetch_add(1, std::memory_order_relaxed);
  absl::Status submitted = executor_.Submit([this, task = std::move(task)]() mutable {
    const Clock::time_point start = Clock::now();
    std::move(task)();
    RecordDuration(Clock::now() - start);
    outstanding_.fetch_sub(1, std::memory_order_relaxed);
  });
  if (submitted.ok()) return submitted;
  outstanding_.fetch_sub(1, std::memory_order_relaxed);
  return QueueFull();
}

absl::Status Admission::QueueFull() const {
  return BusyError(
      "QUEUE_FULL",
      absl::StrCat("all compute threads are busy and ", max_queued_, " requests already wait (--max-queued-requests)"),
      RetryDelayMs());
}

double Admission::DurationMs(int tasks) const {
  return mean_task_ms_.load(std::memory_order_relaxed) * tasks / executor_.num_threads();
}

std::int64_t Admission::RetryDelayMs() const {
  return std::llround(std::clamp(DurationMs(std::max(1, outstanding())), kShortestRetryMs, kLongestRetryMs));
}

void Admission::RecordDuration(Clock::duration duration) {
  const double ms = std::chrono::duration<double, std::milli>(duration).count();
  // Two tasks that end together may lose one of their samples; an average can bear it.
  const double mean = mean_task_ms_.load(std::memory_order_relaxed);
  mean_task_ms_.store(mean + kAverageWeight * (ms - mean), std::memory_order_relaxed);
}

}  // namespace attend::server
