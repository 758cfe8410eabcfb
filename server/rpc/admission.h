// Who may come in: bounds the work that waits, and says when to come back.
//
// A call asks Check before its payload is read. Later its job goes to the executor through Submit, which asks again,
// because calls that were let in together may still find the queue full.
//
// Thread-safe and, in Check, lock-free.
#ifndef ATTEND_SERVER_RPC_ADMISSION_H_
#define ATTEND_SERVER_RPC_ADMISSION_H_

#include <atomic>
#include <chrono>
#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "core/runtime/executor.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// The trailer that gRPC's own libraries obey when they retry (gRFC A6); google.rpc.RetryInfo is for the application.
inline constexpr char kRetryPushbackKey[] = "grpc-retry-pushback-ms";

class Admission {
 public:
  // `executor` must outlive this object; `max_queued` is its bound of waiting tasks.
  Admission(Executor& executor, int max_queued)
      : executor_(executor), max_queued_(max_queued), capacity_(max_queued + executor.num_threads()) {}

  // Whether a call with this deadline may come in now. Errors: UNAVAILABLE with a retry delay, for reason QUEUE_FULL,
  // or DEADLINE_UNREACHABLE when tasks as long as the latest ones would keep it waiting beyond its deadline.
  absl::Status Check(std::chrono::system_clock::time_point deadline) const;

  // Hands `task` to the executor. Errors: UNAVAILABLE with reason QUEUE_FULL and a retry delay; the task is not run.
  absl::Status Submit(absl::AnyInvocable<void() &&> task);

  // Tasks handed to the executor and not finished.
  int outstanding() const { return outstanding_.load(std::memory_order_relaxed); }

  Executor& executor() const { return executor_; }

 private:
  absl::Status QueueFull() const;
  // The time in which `tasks` get done.
  double DurationMs(int tasks) const;
  std::int64_t RetryDelayMs() const;
  void RecordDuration(Clock::duration duration);

  Executor& executor_;
  const int max_queued_;
  const int capacity_;
  std::atomic<int> outstanding_{0};
  std::atomic<double> mean_task_ms_{1.0};  // Moving average.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_ADMISSION_H_
