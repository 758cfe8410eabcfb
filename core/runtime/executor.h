// The threads that compute: a fixed number of workers, a bounded queue of tasks, and help between them.
//
// A task is one request's computation. A worker takes it from the queue and runs it to the end; inside it, ParallelFor
// offers the iterations to workers that have nothing else to do. When every worker has a task of its own, each simply
// runs its iterations alone (best throughput); when some are idle they help (best latency). There is no nesting of
// threads: ParallelFor called from within an iteration runs on the calling thread.
//
//   Executor executor({.num_threads = AvailableCores(), .max_queued_tasks = 64});
//   if (!executor.Submit([] { ... })) ...  // The queue is full.
//
// Thread-safe: every method may be called concurrently, also from tasks.
#ifndef ATTEND_CORE_RUNTIME_EXECUTOR_H_
#define ATTEND_CORE_RUNTIME_EXECUTOR_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "core/base/mutex.h"

namespace attend {

class Executor {
 public:
  struct Options {
    int num_threads = 1;        // At least 1.
    int max_queued_tasks = 64;  // Tasks that wait for a worker; at least 0.
    int nice = 0;               // Linux nice increment for workers, in [0, 19].
  };

  // Starts the workers. REQUIRES: options within the ranges above.
  explicit Executor(const Options& options);
  // Runs every task already admitted, then joins the workers.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues `task`. Returns false when `max_queued_tasks` already wait and no worker is free; the task is then not run.
  [[nodiscard]] bool Submit(absl::AnyInvocable<void() &&> task);

  // Calls body(i) once for every i in [0, count), in any order, on the calling thread and on idle workers; returns when
  // all have returned. Which thread runs an iteration must not influence its result.
  void ParallelFor(std::int64_t count, absl::FunctionRef<void(std::int64_t)> body);

  int num_threads() const;
  int queued_tasks() const;   // Waiting for a worker.
  int running_tasks() const;  // Taken by a worker and not finished.

 private:
  struct Loop;  // One ParallelFor in progress.

  void RunWorker();
  // Both release the mutex while they run the task or the iterations.
  void RunTask() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Help(Loop& loop) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The loop with iterations left that has the fewest helpers; null when there is none.
  Loop* FindLoop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  mutable Mutex mu_;
  CondVar work_;  // Signalled when there is a task, a loop, or the end.
  std::deque<absl::AnyInvocable<void() &&>> queue_ ABSL_GUARDED_BY(mu_);
  std::atomic<int> queued_tasks_{0};               // The queue's size, for helpers to look at between iterations.
  std::vector<Loop*> loops_ ABSL_GUARDED_BY(mu_);  // Those in progress.
  int running_ ABSL_GUARDED_BY(mu_) = 0;
  int idle_ ABSL_GUARDED_BY(mu_) = 0;  // Workers that wait for `work_`.
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> workers_;
};

}  // namespace attend

#endif  // ATTEND_CORE_RUNTIME_EXECUTOR_H_
