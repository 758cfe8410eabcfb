#include "client/cli/progress.h"

#include <unistd.h>

#include <iostream>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace attend::client {
namespace {

constexpr absl::Duration kQuiet = absl::Seconds(1);
constexpr absl::Duration kInterval = absl::Milliseconds(250);
constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr char kWipe[] = "\r\x1b[K";

}  // namespace

void ProgressLine::Begin(std::size_t index, const std::string& label) {
  index_ = index;
  label_ = label;
  under_way_ = true;
}

std::string ProgressLine::Tick(absl::Time now) {
  const bool too_early = now - start_ < kQuiet || (drawn_.has_value() && now - *drawn_ < kInterval);
  if (!under_way_ || too_early) return "";
  drawn_ = now;
  return absl::StrFormat("%s%d/%d %s  %.1f s", kWipe, index_ + 1, total_, label_, absl::ToDoubleSeconds(now - start_));
}

std::string ProgressLine::Pause() {
  under_way_ = false;
  return std::exchange(drawn_, std::nullopt).has_value() ? kWipe : "";
}

Progress::Progress(std::size_t total) : line_(total, absl::Now()) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Run(); });
}

Progress::~Progress() {
  Pause();
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Progress::Begin(std::size_t index, const std::string& label) {
  absl::MutexLock lock(&mutex_);
  line_.Begin(index, label);
}

void Progress::Pause() {
  absl::MutexLock lock(&mutex_);
  std::cerr << line_.Pause() << std::flush;
}

void Progress::Run() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&done_), kTick)) std::cerr << line_.Tick(absl::Now()) << std::flush;
}

}  // namespace attend::client
