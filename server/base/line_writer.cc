#include "server/base/line_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

namespace attend::server {
namespace {

// What a pipe takes at once when poll says that it is writable.
constexpr std::size_t kPieceBytes = 4096;

// How often a writer without a reader looks whether the end has come.
constexpr std::chrono::milliseconds kLook(50);

// The terminal `fd`, opened anew so that writing waits for nobody: poll promises of a terminal a single byte, and a
// longer write would wait for its reader. -1 where `fd` is no terminal, or one that this process may not open.
int OpenTerminal(int fd) {
  if (isatty(fd) == 0) return -1;
  return open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

// Writes a piece of `text` as soon as `fd` takes it. How many bytes; 0 when it took none for kLook; -1 when it is
// broken.
ssize_t WritePiece(int fd, std::string_view text) {
  pollfd writable{.fd = fd, .events = POLLOUT, .revents = 0};
  const int ready = poll(&writable, 1, static_cast<int>(kLook.count()));
  if (ready == 0) return 0;
  if (ready > 0 && (writable.revents & POLLOUT) == 0) return -1;
  const ssize_t written = ready < 0 ? -1 : write(fd, text.data(), std::min(kPieceBytes, text.size()));
  if (written >= 0) return written;
  if (ready > 0 && errno != EINTR && errno != EAGAIN) return -1;
  std::this_thread::sleep_for(kLook);  // The kernel is out of memory, or a terminal out of room after all.
  return 0;
}

}  // namespace

LineWriter::LineWriter(int fd, std::size_t max_bytes)
    : terminal_(OpenTerminal(fd)),
      fd_(terminal_ >= 0 ? terminal_ : fd),
      max_bytes_(max_bytes),
      thread_([this] { Run(); }) {}

LineWriter::~LineWriter() {
  {
    const MutexLock lock(mu_);
    stopping_ = true;
    give_up_ = Clock::now() + kPatience;
  }
  changed_.SignalAll();
  thread_.join();
  if (terminal_ >= 0) close(terminal_);
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
  for (std::string_view rest = line; !rest.empty();) {
    if (GivesUp()) return false;  // Asked each time: a reader that is slow keeps nobody either.
    const ssize_t written = WritePiece(fd_, rest);
    if (written < 0) return true;  // Nobody can be told; the next line may fare better.
    rest.remove_prefix(static_cast<std::size_t>(written));
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
