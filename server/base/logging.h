// The server's log: one line per event on standard error, as text for people or JSON for machines.
//
//   2026-01-31T12:00:00.000Z info listening address=0.0.0.0:50051
//   {"time":"2026-01-31T12:00:00.000Z","level":"info","message":"listening","address":"0.0.0.0:50051"}
//
// Whatever text comes from outside stays on its one line. Tensor values and secrets are never logged. A line is written
// by another thread; when nobody reads standard error, lines are dropped and counted, and the first one that finds room
// again comes with their number.
// Thread-safe.
#ifndef ATTEND_SERVER_BASE_LOGGING_H_
#define ATTEND_SERVER_BASE_LOGGING_H_

#include <grpc/support/log.h>
#include <spdlog/common.h>
#include <spdlog/logger.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"
#include "core/base/mutex.h"
#include "server/base/line_writer.h"

namespace attend::server {

enum class LogFormat : std::uint8_t { kText, kJson };

// `trace`, `debug`, `info`, `warning`, `error` or `off`.
using LogLevel = spdlog::level::level_enum;
LogLevel ParseLogLevel(std::string_view name);  // `off` for anything else.

struct LogField {
  std::string_view key;  // lower_snake_case.
  std::variant<std::string, std::int64_t, double> value;
};

class Log {
 public:
  struct Options {
    LogFormat format = LogFormat::kText;
    LogLevel level = spdlog::level::info;
  };

  // Writes to `sink`, at once; to standard error, from another thread, when null.
  explicit Log(const Options& options, spdlog::sink_ptr sink = nullptr);

  // Whether a line of this level is written; lets a caller skip the making of it.
  bool Enabled(LogLevel level) const { return logger_.should_log(level); }

  void Write(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {}) {
    WriteFields(level, message, fields);
  }
  // The same with fields that a caller has put together.
  void WriteFields(LogLevel level, std::string_view message, absl::Span<const LogField> fields);
  // A line that is written whatever the least level is, and says that it is of level info: for what has to be on
  // record.
  void Record(std::string_view message, absl::Span<const LogField> fields);
  // Waits a moment for what was written so far: for lines that may be the last.
  void Flush();
  // Lines that were dropped because nobody read them.
  std::int64_t dropped_lines() const { return writer_ == nullptr ? 0 : writer_->dropped(); }

  void Info(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(spdlog::level::info, message, fields);
  }
  void Warning(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(spdlog::level::warn, message, fields);
  }
  void Error(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(spdlog::level::err, message, fields);
  }

 private:
  void WriteLine(LogLevel level, std::string_view message, absl::Span<const LogField> fields);

  void WriteDropped();

  const LogFormat format_;
  const std::unique_ptr<LineWriter> writer_;  // Null with a sink of the caller's.
  spdlog::logger logger_;
};

// Thread-safe. Lets the first `most` lines of each `window` pass. Windows begin with the first line after the end of
// the last one.
class LogRateLimit {
 public:
  using Clock = std::chrono::steady_clock;

  struct Verdict {
    bool pass = false;
    std::int64_t held_back = 0;  // With the first line of a window: how many the last one held back.
  };

  LogRateLimit(int most, Clock::duration window) : most_(most), window_(window) {}

  // What to do with a line that comes at `now`. REQUIRES: `now` does not go back by much.
  Verdict Ask(Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);
  // How many lines a window that has ended by `now` held back, unless it has been told: no further line may come.
  std::int64_t TakeHeldBack(Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const int most_;
  const Clock::duration window_;
  Mutex mu_;
  Clock::time_point end_ ABSL_GUARDED_BY(mu_){};  // Of the current window.
  int passed_ ABSL_GUARDED_BY(mu_) = 0;           // In the current window.
  std::int64_t held_back_ ABSL_GUARDED_BY(mu_) = 0;
};

// Sends what gRPC itself logs to a Log, for as long as this object lives: its errors as warnings, at most ten in ten
// seconds because peers can cause them at will, with a line that counts those left out. gRPC knows one log function per
// process, so REQUIRES: no other object of this class. Its end waits for threads of gRPC that are writing.
class GrpcLogRoute {
 public:
  explicit GrpcLogRoute(Log& log);
  ~GrpcLogRoute();
  GrpcLogRoute(const GrpcLogRoute&) = delete;
  GrpcLogRoute& operator=(const GrpcLogRoute&) = delete;

  // What gRPC calls for each of its lines.
  void Write(const gpr_log_func_args& args);

 private:
  Log& log_;
  LogRateLimit limit_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_BASE_LOGGING_H_
