#include "server/log_rate_limit.h"

#include <utility>

namespace attend::server {

LogRateLimit::Verdict LogRateLimit::Ask(Clock::time_point now) {
  const MutexLock lock(mu_);
  if (now >= end_) {
    end_ = now + window_;
    passed_ = 1;
    return {.pass = true, .held_back = std::exchange(held_back_, 0)};
  }
  if (passed_ == most_) {
    ++held_back_;
    return {};
  }
  ++passed_;
  return {.pass = true};
}

}  // namespace attend::server
