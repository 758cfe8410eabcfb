// Looks at files again and again, on a thread of its own, and at once when asked.
#ifndef ATTEND_SERVER_RELOADER_H_
#define ATTEND_SERVER_RELOADER_H_

#include <chrono>
#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"

namespace attend::server {

// Thread-safe.
class Reloader {
 public:
  // Calls `reload` every `interval`.
  Reloader(std::chrono::milliseconds interval, std::function<void()> reload)
      : interval_(interval), reload_(std::move(reload)), thread_([this] { Run(); }) {}
  ~Reloader() {
    {
      const MutexLock lock(mu_);
      stopped_ = true;
    }
    changed_.SignalAll();
    thread_.join();
  }
  Reloader(const Reloader&) = delete;
  Reloader& operator=(const Reloader&) = delete;

  // Has `reload` called soon. Does not wait for it.
  void Now() ABSL_LOCKS_EXCLUDED(mu_) {
    {
      const MutexLock lock(mu_);
      asked_ = true;
    }
    changed_.SignalAll();
  }

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_) {
    for (;;) {
      {
        const auto next = std::chrono::steady_clock::now() + interval_;
        const MutexLock lock(mu_);
        while (!stopped_ && !asked_ && changed_.WaitUntil(mu_, next)) {
        }
        if (stopped_) return;
        asked_ = false;
      }
      reload_();
    }
  }

  const std::chrono::milliseconds interval_;
  const std::function<void()> reload_;
  Mutex mu_;
  CondVar changed_;
  bool asked_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RELOADER_H_
