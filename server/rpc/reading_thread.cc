#include "server/rpc/reading_thread.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

namespace attend::server {
namespace {

// Processor time in which gRPC parses what it reads at a time, 4 MiB at most, and publishes it: less than 2 ms.
constexpr std::chrono::milliseconds kPublishing(5);

}  // namespace

void ReadingThread::Start(std::function<void()> work) {
  thread_ = std::thread([this, work = std::move(work)] {
    if (clockid_t clock; pthread_getcpuclockid(pthread_self(), &clock) == 0) {
      clock_.store(clock, kRelaxed);
      id_.store(gettid(), std::memory_order_release);
    }
    work();
  });
}

void ReadingThread::Join() {
  if (thread_.joinable()) thread_.join();
}

std::chrono::nanoseconds ReadingThread::UsedTime() const {
  timespec used;
  // The kernel knows the clock for as long as the thread runs.
  if (id_.load(std::memory_order_acquire) == 0 || clock_gettime(clock_.load(kRelaxed), &used) != 0) return {};
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

bool ReadingThread::Sleeps() const {
  const pid_t id = id_.load(kRelaxed);
  if (id == 0) return true;  // It has not begun.
  const int fd = open(("/proc/self/task/" + std::to_string(id) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;  // While descriptors are short.
  char text[128];            // proc_pid_stat(5): the state follows the name, which is in parentheses and short.
  const ssize_t size = read(fd, text, sizeof text);
  close(fd);
  if (size <= 0) return false;
  const std::string_view stat(text, static_cast<std::size_t>(size));
  const std::size_t name_end = stat.rfind(") ");
  return name_end != std::string_view::npos && name_end + 2 < stat.size() && stat[name_end + 2] == 'S';
}

ReadingThread::Moment ReadingThread::Now() const {
  // In this order: a thread that begins to work meanwhile is not taken for one that sleeps.
  const std::uint64_t state = state_.load(kRelaxed);
  return {.state = state, .used = UsedTime(), .sleeps = (state & kPhase) == kAsks && Sleeps()};
}

bool ReadingThread::IsKeptSince(const Moment& then) const {
  return state_.load(kRelaxed) == then.state && (then.state & kPhase) == kAsks && UsedTime() - then.used >= kPublishing;
}

bool ReadingThread::HasPublished(const Moment& then) const {
  const std::uint64_t now = state_.load(kRelaxed);
  if ((now & kPhase) == kRests || now >> kPhaseBits != then.state >> kPhaseBits) return true;
  // It may sleep for a moment because another thread has a lock, while it reads. Its state comes last: it may be back
  // in between, and sleep there.
  if (then.sleeps && Sleeps() && state_.load(kRelaxed) == then.state) return true;
  return IsKeptSince(then);
}

}  // namespace attend::server
