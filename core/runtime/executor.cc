#include "core/runtime/executor.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace attend {

// Lives on the stack of the thread that called ParallelFor, which outlasts every helper: it leaves only when `helpers`
// is 0 and no worker can find the loop any more.
struct Executor::Loop {
  const absl::FunctionRef<void(std::int64_t)> body;
  const std::int64_t count;
  std::atomic<std::int64_t> next{0};  // The first iteration that nobody has taken.
  int helpers = 0;                    // Workers inside; guarded by the executor's mutex.
  CondVar last_helper_left;

  bool HasWork() const { return next.load(std::memory_order_relaxed) < count; }
};

namespace {

// Whether this thread is inside an iteration, where a further ParallelFor must not spread.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): one per thread, seen by no other.
thread_local bool in_iteration = false;

// Runs one iteration after another until there are none left or `keep_going` says no.
template <typename Loop, typename KeepGoing>
void RunIterations(Loop& loop, KeepGoing keep_going) {
  in_iteration = true;
  do {
    const std::int64_t i = loop.next.fetch_add(1, std::memory_order_relaxed);
    if (i >= loop.count) break;
    loop.body(i);
  } while (keep_going());
  in_iteration = false;
}

}  // namespace

Executor::Executor(const Options& options) : options_(options) {
  workers_.reserve(static_cast<std::size_t>(options.num_threads));
  for (int i = 0; i < options.num_threads; ++i) workers_.emplace_back([this] { RunWorker(); });
}

Executor::~Executor() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  work_.SignalAll();
  for (std::thread& worker : workers_) worker.join();
}

bool Executor::Submit(absl::AnyInvocable<void() &&> task) {
  MutexLock lock(mu_);
  const int free =
      options_.num_threads - running_;  // Those that help count: they take a task before further iterations.
  const int queued = static_cast<int>(queue_.size());
  if (queued - free >= options_.max_queued_tasks) return false;
  queue_.push_back(std::move(task));
  queued_tasks_.store(queued + 1, std::memory_order_relaxed);
  work_.Signal();
  return true;
}

void Executor::ParallelFor(std::int64_t count, absl::FunctionRef<void(std::int64_t)> body) {
  if (in_iteration) {
    for (std::int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  Loop loop{body, count};
  const auto always = [] { return true; };
  if (count <= 1) return RunIterations(loop, always);
  {
    MutexLock lock(mu_);
    loops_.push_back(&loop);
    const auto useful = static_cast<int>(std::min<std::int64_t>(idle_, count - 1));
    for (int i = 0; i < useful; ++i) work_.Signal();
  }
  RunIterations(loop, always);
  MutexLock lock(mu_);
  loops_.erase(std::find(loops_.begin(), loops_.end(), &loop));
  while (loop.helpers > 0) loop.last_helper_left.Wait(mu_);
}

int Executor::num_threads() const { return options_.num_threads; }

int Executor::queued_tasks() const { return queued_tasks_.load(std::memory_order_relaxed); }

int Executor::running_tasks() const {
  MutexLock lock(mu_);
  return running_;
}

Executor::Loop* Executor::FindLoop() {
  Loop* best = nullptr;
  for (Loop* loop : loops_) {
    if (loop->HasWork() && (best == nullptr || loop->helpers < best->helpers)) best = loop;
  }
  return best;
}

void Executor::RunTask() {
  absl::AnyInvocable<void()&&> task = std::move(queue_.front());
  queue_.pop_front();
  queued_tasks_.store(static_cast<int>(queue_.size()), std::memory_order_relaxed);
  ++running_;
  mu_.Unlock();
  std::move(task)();
  task = nullptr;  // Destroyed, with what it owns, before it counts as finished.
  mu_.Lock();
  --running_;
}

void Executor::Help(Loop& loop) {
  ++loop.helpers;
  mu_.Unlock();
  RunIterations(loop, [this] { return queued_tasks() == 0; });
  mu_.Lock();
  if (--loop.helpers == 0) loop.last_helper_left.Signal();
}

void Executor::RunWorker() {
  // On Linux a thread has a priority of its own. A system that refuses leaves the thread as it was.
  if (options_.nice > 0) setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), options_.nice);
  MutexLock lock(mu_);
  while (true) {
    if (!queue_.empty()) {
      RunTask();
    } else if (Loop* loop = FindLoop(); loop != nullptr) {
      Help(*loop);
    } else if (stopping_) {
      return;
    } else {
      ++idle_;
      work_.Wait(mu_);
      --idle_;
    }
  }
}

}  // namespace attend
