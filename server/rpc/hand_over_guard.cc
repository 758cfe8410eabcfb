#include "server/rpc/hand_over_guard.h"

#include <utility>

namespace attend::server {

HandOverGuard::HandOverGuard(Clock::duration patience, std::function<void(std::int64_t)> end)
    : patience_(patience), end_(std::move(end)), thread_([this] { Run(); }) {}

HandOverGuard::~HandOverGuard() {
  {
    const MutexLock lock(mu_);
    stops_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void HandOverGuard::Begin(std::int64_t connection) {
  const MutexLock lock(mu_);
  connection_ = connection;
  until_ = Clock::now() + patience_;
  if (sleeps_) changed_.Signal();
}

void HandOverGuard::End() {
  const MutexLock lock(mu_);
  connection_ = kNone;
}

void HandOverGuard::Run() {
  const MutexLock lock(mu_);
  while (!stops_) {
    if (connection_ == kNone) {
      sleeps_ = true;
      changed_.Wait(mu_);
      sleeps_ = false;
    } else if (Clock::now() < until_) {
      changed_.WaitUntil(mu_, until_);
    } else {
      end_(connection_);
      until_ = Clock::now() + patience_;
    }
  }
}

}  // namespace attend::server
