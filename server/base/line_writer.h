// Writes lines to a descriptor on a thread of its own, so that a reader that is slow or gone stops nobody.
#ifndef ATTEND_SERVER_BASE_LINE_WRITER_H_
#define ATTEND_SERVER_BASE_LINE_WRITER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"

namespace attend::server {

// Thread-safe. Never blocks but in Flush and at its end, and there for a bounded time; at its end longer only for a
// terminal that nobody reads and this process may not open (another user's), or a pipe that others fill meanwhile.
class LineWriter {
 public:
  // How long the end waits for a reader.
  static constexpr std::chrono::milliseconds kPatience{1000};

  // Writes to `fd`, which stays the caller's. At most `max_bytes` wait; lines that find no room are dropped.
  LineWriter(int fd, std::size_t max_bytes);
  // Writes what waits, for as long as kPatience.
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  void Write(std::string line) ABSL_LOCKS_EXCLUDED(mu_);
  // Waits until all is written, for as long as `patience`.
  void Flush(std::chrono::milliseconds patience) ABSL_LOCKS_EXCLUDED(mu_);

  // Lines that were dropped so far.
  std::int64_t dropped() const ABSL_LOCKS_EXCLUDED(mu_);
  // How many were dropped since this was last asked; 0 while half of the room is taken, so that the answer can be
  // written.
  std::int64_t TakeDropped() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Clock = std::chrono::steady_clock;

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // False when the end has come and its patience is over. A line that cannot be written is left out.
  bool WriteAll(const std::string& line) ABSL_LOCKS_EXCLUDED(mu_);
  bool GivesUp() const ABSL_LOCKS_EXCLUDED(mu_);

  const int terminal_;  // Of its own; else -1.
  const int fd_;
  const std::size_t max_bytes_;
  mutable Mutex mu_;
  CondVar changed_;
  std::deque<std::string> lines_ ABSL_GUARDED_BY(mu_);  // The first is being written.
  std::size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::int64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  std::int64_t told_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  Clock::time_point give_up_ ABSL_GUARDED_BY(mu_);  // Once it is stopping.
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_BASE_LINE_WRITER_H_
