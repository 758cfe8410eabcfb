#include "client/cli/commands/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/text/message_json.h"

namespace attend::client {
namespace {

constexpr absl::Duration kQuiet = absl::Seconds(1);
constexpr absl::Duration kInterval = absl::Milliseconds(250);
constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr int kBarWidth = 20;
constexpr char kWipe[] = "\r\x1b[K";

}  // namespace

void ProgressLine::Begin(std::size_t index, const std::string& label) {
  Show(absl::StrFormat("%d/%d %s", index + 1, total_, label));
}

void ProgressLine::Show(const std::string& text) {
  text_ = text;
  under_way_ = true;
}

std::string ProgressLine::Tick(absl::Time now) {
  const bool too_early = now - start_ < kQuiet || (drawn_.has_value() && now - *drawn_ < kInterval);
  if (!under_way_ || too_early) return "";
  drawn_ = now;
  return absl::StrFormat("%s%s  %.1f s", kWipe, text_, absl::ToDoubleSeconds(now - start_));
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

void Progress::Show(const std::string& text) {
  absl::MutexLock lock(&mutex_);
  line_.Show(text);
}

void Progress::Pause() {
  absl::MutexLock lock(&mutex_);
  std::cerr << line_.Pause() << std::flush;
}

void Progress::Run() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&done_), kTick)) std::cerr << line_.Tick(absl::Now()) << std::flush;
}

std::string UploadText(const std::string& name, const UploadProgress& progress) {
  const std::string sent = FormatBytes(progress.sent_bytes);
  if (!progress.total_bytes.has_value() || *progress.total_bytes <= 0) return absl::StrFormat("%s  %s", name, sent);
  const auto total = static_cast<double>(*progress.total_bytes);
  const double share = std::min(static_cast<double>(progress.sent_bytes) / total, 1.0);
  const std::string bar(static_cast<std::size_t>(share * kBarWidth), '#');
  if (share >= 1) return absl::StrFormat("%s [%s] 100 %%  waiting for the server", name, bar);
  return absl::StrFormat("%s [%-*s] %3.0f %%  %s of %s", name, kBarWidth, bar, std::floor(100 * share), sent,
                         FormatBytes(*progress.total_bytes));
}

}  // namespace attend::client
