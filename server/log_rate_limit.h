// Keeps those who can cause log lines from flooding the log.
//
// Thread-safe.
#ifndef ATTEND_SERVER_LOG_RATE_LIMIT_H_
#define ATTEND_SERVER_LOG_RATE_LIMIT_H_

#include <chrono>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"

namespace attend::server {

// Lets the first `most` lines of each `window` pass. Windows begin with the first line after the end of the last one.
class LogRateLimit {
 public:
  using Clock = std::chrono::steady_clock;

  struct Verdict {
    bool pass = false;
    std::int64_t held_back = 0;  // With the first line of a window: how many the last one held back.
  };

  LogRateLimit(int most, Clock::duration window) : most_(most), window_(window) {}

  // What to do with a line that comes at `now`. REQUIRES: `now` does not go back by much.
  Verdict Ask(Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const int most_;
  const Clock::duration window_;
  Mutex mu_;
  Clock::time_point end_ ABSL_GUARDED_BY(mu_){};  // Of the current window.
  int passed_ ABSL_GUARDED_BY(mu_) = 0;           // In the current window.
  std::int64_t held_back_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LOG_RATE_LIMIT_H_
