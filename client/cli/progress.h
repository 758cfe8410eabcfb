// A line on a terminal that says how far a batch is, for those who wait longer than a second.
#ifndef ATTEND_CLIENT_CLI_PROGRESS_H_
#define ATTEND_CLIENT_CLI_PROGRESS_H_

#include <cstddef>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace attend::client {

// Writes to stderr from a thread of its own, at most a few times a second, and only while stderr is a terminal. The
// line is wiped before anything else is printed (Pause) and at the end. Thread-safe.
class Progress {
 public:
  // `total` pieces of work are ahead.
  explicit Progress(std::size_t total);
  ~Progress();

  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Piece number `index` (0-based), called `label`, begins.
  void Begin(std::size_t index, const std::string& label);

  // Wipes the line until the next Begin.
  void Pause();

 private:
  void Run();
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wipe() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::size_t total_;
  const absl::Time start_;
  absl::Mutex mutex_;
  std::size_t index_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string label_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = true;
  bool drawn_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Not started when stderr is no terminal.
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_PROGRESS_H_
