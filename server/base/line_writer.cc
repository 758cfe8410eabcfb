#include "server/base/line_writer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace attend::server {
namespace {

// What a pipe takes at once when poll says that it is writable.
constexpr std::size_t kPieceBytes = 4096;

// How often a writer without a reader looks whether the end has come.
constexpr int kLookMs = 50;

}  // namespace

LineWriter::LineWriter(int fd, std::size_t max_bytes) : fd_(fd), max_bytes_(max_bytes), thread_([this] { Run(); }) {}

LineWriter::~LineWriter() {
  {
    const MutexLock lock(mu_);
    stopping_ = true;
    give_up_ = Clock::now() + kPatience;
  }
  changed_.SignalAll();
  thread_.join();
}

void LineWriter::Write(std::string line) {
  {
    const MutexLock lock(mu_);
    if (bytes_ + line.size() > max_bytes_) {
      ++dropped_;
      return;
    }
    bytes_ += line.size();
    lines_.push_back(std::move(line));
  }
  changed_.SignalAll();
}

void LineWriter::Flush(std::chrono::milliseconds patience) {
  const Clock::time_point end = Clock::now() + patience;
  const MutexLock lock(mu_);
  while (!lines_.empty() && changed_.WaitUntil(mu_, end)) {
  }
}

std::int64_t LineWriter::dropped() const {
  const MutexLock lock(mu_);
  return dropped_;
}

std::int64_t LineWriter::TakeDropped() {
  const MutexLock lock(mu_);
  if (bytes_ > max_bytes_ / 2) return 0;
  return dropped_ - std::exchange(told_, dropped_);
}

bool LineWriter::GivesUp() const {
  const MutexLock lock(mu_);
  return stopping_ && Clock::now() >= give_up_;
}

bool LineWriter::WriteAll(const std::string& line) {
  for (std::size_t done = 0; done < line.size();) {
    pollfd writable{.fd = fd_, .events = POLLOUT, .revents = 0};
    const int ready = poll(&writable, 1, kLookMs);
    if (ready == 0 && GivesUp()) return false;
    if (ready <= 0) continue;
    if ((writable.revents & POLLOUT) == 0) return true;  // Broken. Nobody can be told; the next line may fare better.
    const ssize_t written = write(fd_, line.data() + done, std::min(kPieceBytes, line.size() - done));
    if (written < 0 && errno != EINTR && errno != EAGAIN) return true;
    if (written > 0) done += static_cast<std::size_t>(written);
  }
  return true;
}

void LineWriter::Run() {
  for (;;) {
    const std::string* line = nullptr;
    {
      const MutexLock lock(mu_);
      while (lines_.empty() && !stopping_) changed_.Wait(mu_);
      if (lines_.empty()) return;
      line = &lines_.front();  // A deque's elements stay where they are.
    }
    if (!WriteAll(*line)) return;
    {
      const MutexLock lock(mu_);
      bytes_ -= line->size();
      lines_.pop_front();
    }
    changed_.SignalAll();
  }
}

}  // namespace attend::server
