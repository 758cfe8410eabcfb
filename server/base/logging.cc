#include "server/base/logging.h"

#include <grpc/support/log.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

namespace attend::server {
namespace {

// %v is what Render returns: in JSON the remaining members of the object.
constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
constexpr char kJsonPattern[] = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})";

std::string Json(const nlohmann::json& value) {
  // Bytes that are not UTF-8 are replaced; by default they would throw.
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string JsonValue(const LogField& field) {
  return std::visit([](const auto& value) { return Json(value); }, field.value);
}

bool IsPlain(char c) { return std::isgraph(static_cast<unsigned char>(c)) != 0 && c != '"' && c != '='; }

// Quoted, as in JSON, where a reader could not otherwise tell where it ends.
std::string TextValue(const LogField& field) {
  const auto* text = std::get_if<std::string>(&field.value);
  if (text != nullptr && !text->empty() && std::all_of(text->begin(), text->end(), IsPlain)) return *text;
  return JsonValue(field);
}

std::string OneLine(std::string_view message) {
  std::string line(message);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return line;
}

std::string RenderText(std::string_view message, absl::Span<const LogField> fields) {
  std::string line = OneLine(message);
  for (const LogField& field : fields) line.append(" ").append(field.key).append("=").append(TextValue(field));
  return line;
}

std::string RenderJson(std::string_view message, absl::Span<const LogField> fields) {
  std::string line = "\"message\":" + Json(message);
  for (const LogField& field : fields) {
    line.append(",").append(Json(field.key)).append(":").append(JsonValue(field));
  }
  return line;
}

std::unique_ptr<spdlog::formatter> MakeFormatter(LogFormat format) {
  return std::make_unique<spdlog::pattern_formatter>(format == LogFormat::kJson ? kJsonPattern : kTextPattern,
                                                     spdlog::pattern_time_type::utc);
}

// What may wait for a reader of standard error.
constexpr std::size_t kMaxWaitingBytes = 1 << 20;

class WriterSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit WriterSink(LineWriter& writer) : writer_(writer) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    writer_.Write(std::string(line.data(), line.size()));
  }
  void flush_() override {}

  LineWriter& writer_;
};

// Where gRPC's log goes. gRPC calls a plain function without context, so these have to be reachable from everywhere.
// Who writes holds the lock, so that the route's end waits for it: gRPC has threads that outlive every server.
// NOLINTBEGIN(cppcoreguidelines-avoid-non-const-global-variables)
Mutex grpc_route_mu;
GrpcLogRoute* grpc_route ABSL_GUARDED_BY(grpc_route_mu) = nullptr;
// NOLINTEND(cppcoreguidelines-avoid-non-const-global-variables)

void SetGrpcRoute(GrpcLogRoute* route) {
  const MutexLock lock(grpc_route_mu);
  grpc_route = route;
}

constexpr char kAssertion[] = "assertion failed";

// Some of gRPC's errors can be had for the asking, such as one for each compressed message.
constexpr int kMostGrpcLines = 10;
constexpr std::chrono::seconds kGrpcLinesWindow(10);

void LogFromGrpc(gpr_log_func_args* args) {
  const MutexLock lock(grpc_route_mu);
  if (grpc_route != nullptr) grpc_route->Write(*args);
}

}  // namespace

LogLevel ParseLogLevel(std::string_view name) { return spdlog::level::from_str(std::string(name)); }

Log::Log(const Options& options, spdlog::sink_ptr sink)
    : format_(options.format),
      writer_(sink != nullptr ? nullptr : std::make_unique<LineWriter>(STDERR_FILENO, kMaxWaitingBytes)),
      logger_("attend", sink != nullptr ? std::move(sink) : std::make_shared<WriterSink>(*writer_)) {
  logger_.set_formatter(MakeFormatter(options.format));
  logger_.set_level(options.level);
  logger_.flush_on(spdlog::level::trace);
}

void Log::WriteFields(LogLevel level, std::string_view message, absl::Span<const LogField> fields) {
  if (!Enabled(level)) return;
  WriteDropped();
  WriteLine(level, message, fields);
}

void Log::WriteDropped() {
  const std::int64_t dropped = writer_ == nullptr ? 0 : writer_->TakeDropped();
  if (dropped > 0) {
    const LogField count{"count", dropped};
    WriteLine(spdlog::level::warn, "lines were dropped because nobody read the log", absl::MakeConstSpan(&count, 1));
  }
}

void Log::Record(std::string_view message, absl::Span<const LogField> fields) {
  WriteDropped();
  const std::string line = format_ == LogFormat::kJson ? RenderJson(message, fields) : RenderText(message, fields);
  // The logger would leave it out; its sinks do not.
  const spdlog::details::log_msg record(logger_.name(), spdlog::level::info, spdlog::string_view_t(line));
  for (const spdlog::sink_ptr& sink : logger_.sinks()) {
    sink->log(record);
    sink->flush();
  }
}

void Log::Flush() {
  if (writer_ != nullptr) writer_->Flush(LineWriter::kPatience);
}

void Log::WriteLine(LogLevel level, std::string_view message, absl::Span<const LogField> fields) {
  const std::string line = format_ == LogFormat::kJson ? RenderJson(message, fields) : RenderText(message, fields);
  logger_.log(level, spdlog::string_view_t(line));
}

LogRateLimit::Verdict LogRateLimit::Ask(Clock::time_point now) {
  const MutexLock lock(mu_);
  if (now >= end_) {
    end_ = now + window_;
    passed_ = 1;
    return {.pass = true, .held_back = std::exchange(held_back_, 0)};
  }
  if (passed_ == most_) {
    ++held_back_;
    return {};
  }
  ++passed_;
  return {.pass = true};
}

std::int64_t LogRateLimit::TakeHeldBack(Clock::time_point now) {
  const MutexLock lock(mu_);
  return now < end_ ? 0 : std::exchange(held_back_, 0);
}

GrpcLogRoute::GrpcLogRoute(Log& log) : log_(log), limit_(kMostGrpcLines, kGrpcLinesWindow) {
  SetGrpcRoute(this);
  gpr_set_log_function(LogFromGrpc);
  // GRPC_VERBOSITY, where someone set it, stays in force.
  if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
}

GrpcLogRoute::~GrpcLogRoute() {
  gpr_set_log_function(nullptr);
  SetGrpcRoute(nullptr);
}

void GrpcLogRoute::Write(const gpr_log_func_args& args) {
  // gRPC calls an error what is often only a peer that went away; those who operate the server should look, not run.
  const LogLevel level = args.severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug;
  if (!log_.Enabled(level)) return;
  if (level == spdlog::level::warn) {
    const LogRateLimit::Verdict verdict = limit_.Ask(LogRateLimit::Clock::now());
    if (verdict.held_back > 0) log_.Warning("warnings of gRPC were left out", {{"count", verdict.held_back}});
    if (!verdict.pass) return;
  }
  log_.Write(level, args.message, {{"source", std::string("grpc")}, {"file", std::string(args.file)}});
  if (std::strncmp(args.message, kAssertion, sizeof kAssertion - 1) == 0) log_.Flush();  // The process ends now.
}

}  // namespace attend::server
