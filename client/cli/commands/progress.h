// A line on a terminal that says how far a batch or an upload is, for those who wait longer than a second.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_PROGRESS_H_
#define ATTEND_CLIENT_CLI_COMMANDS_PROGRESS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/lib/layer_client.h"

namespace attend::client {

// What the line shows and when, as text to write: it appears a second after the start and is drawn anew at most four
// times a second, and only while a piece of work is under way. Time is what the caller says it is. Thread-compatible.
class ProgressLine {
 public:
  // `total` pieces of work are ahead, from `start` on.
  ProgressLine(std::size_t total, absl::Time start) : total_(total), start_(start) {}

  // Piece number `index` (0-based), called `label`, begins; what is shown changes with the next Tick.
  void Begin(std::size_t index, const std::string& label);

  // The same, with words of the caller's own in place of the count.
  void Show(const std::string& text);

  // What to write when it is `now`: the line, or nothing.
  std::string Tick(absl::Time now);

  // What to write so that others may: wipes the line, if there is one. Nothing is shown until the next Begin.
  std::string Pause();

 private:
  const std::size_t total_;
  const absl::Time start_;
  std::string text_;
  bool under_way_ = false;
  std::optional<absl::Time> drawn_;  // When the line was last drawn, if it is there.
};

// Draws a ProgressLine on stderr from a thread of its own, if stderr is a terminal, and wipes it at the end. Methods as
// ProgressLine's. Thread-safe.
class Progress {
 public:
  explicit Progress(std::size_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Begin(std::size_t index, const std::string& label);
  void Show(const std::string& text);
  void Pause();

 private:
  void Run();

  absl::Mutex mutex_;
  ProgressLine line_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Not started when stderr is no terminal.
};

// `minilm/0 [######              ]  30 %  26 MiB of 86.66 MiB`: how far the upload of the layer `name` is.
std::string UploadText(const std::string& name, const UploadProgress& progress);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_PROGRESS_H_
