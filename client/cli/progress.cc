#include "client/cli/progress.h"

#include <unistd.h>

#include <iostream>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace attend::client {
namespace {

constexpr absl::Duration kQuiet = absl::Seconds(1);
constexpr absl::Duration kInterval = absl::Milliseconds(250);

}  // namespace

Progress::Progress(std::size_t total) : total_(total), start_(absl::Now()) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Run(); });
}

Progress::~Progress() {
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
    Wipe();
  }
  if (thread_.joinable()) thread_.join();
}

void Progress::Begin(std::size_t index, const std::string& label) {
  absl::MutexLock lock(&mutex_);
  index_ = index;
  label_ = label;
  paused_ = false;
}

void Progress::Pause() {
  absl::MutexLock lock(&mutex_);
  paused_ = true;
  Wipe();
}

void Progress::Run() {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&done_), kQuiet);
  while (!done_) {
    if (!paused_) Draw();
    mutex_.AwaitWithTimeout(absl::Condition(&done_), kInterval);
  }
}

void Progress::Draw() {
  std::cerr << absl::StrFormat("\r\x1b[K%d/%d %s  %.1f s", index_ + 1, total_, label_,
                               absl::ToDoubleSeconds(absl::Now() - start_))
            << std::flush;
  drawn_ = true;
}

void Progress::Wipe() {
  if (drawn_) std::cerr << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

}  // namespace attend::client
