// A call engine on the fake gRPC whose jobs make threads meet: they compute until they have done their part, look at
// the flag of cancellation meanwhile, and have idle threads help.
#ifndef ATTEND_TESTS_THREADS_BUSY_ENGINE_H_
#define ATTEND_TESTS_THREADS_BUSY_ENGINE_H_

#include <grpcpp/security/server_credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/runtime/executor.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/rpc/admission.h"
#include "server/rpc/call_engine.h"
#include "server/rpc/request_run.h"
#include "server/wire/wire_format.h"
#include "tests/fake_grpc/client_call.h"

namespace attend::testing {

// Runs body(0) ... body(count - 1), each on a thread of its own, until all have returned.
inline void InThreads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

// The reason in the error's details; empty when there is none.
inline std::string Reason(const grpc::Status& status) {
  google::rpc::Status rich;
  google::rpc::ErrorInfo info;
  if (!rich.ParseFromString(status.error_details())) return "";
  for (const auto& detail : rich.details()) {
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

// Answers with its request. One that starts with `large` goes to a compute thread and works for some hundred
// microseconds; one that starts with `endless` until it is cancelled; all others run on the polling thread.
class BusyJob final : public server::Job {
 public:
  explicit BusyJob(const grpc::ByteBuffer& request) : memory_(request.Length()) {
    const server::WireBytes bytes(request);
    text_.resize(static_cast<std::size_t>(bytes.size()));
    bytes.Copy({0, bytes.size()}, text_.data());
  }

  double flops() const override { return is("large") || is("endless") ? 1e8 : 1; }
  double memory_bytes() const override { return static_cast<double>(2 * memory_); }

  absl::Status Compute(const ComputeContext& context) override {
    for (std::int64_t step = 0; is("endless") || (is("large") && step < 8); ++step) {
      if (context.cancelled->load(std::memory_order_relaxed)) return absl::CancelledError("cancelled");
      Work(context);
    }
    return absl::OkStatus();
  }
  grpc::ByteBuffer TakeResponse() override {
    const grpc::Slice slice(text_);
    return grpc::ByteBuffer(&slice, 1);
  }

 private:
  bool is(const char* kind) const { return text_.rfind(kind, 0) == 0; }

  // Every part is a thread's own, all are read when the loop has ended.
  static void Work(const ComputeContext& context) {
    std::vector<std::int64_t> parts(4);
    const auto body = [&](std::int64_t part) {
      for (std::int64_t i = 0; i < 2000; ++i) parts[static_cast<std::size_t>(part)] += i * part;
    };
    if (context.executor == nullptr) return body(0);
    context.executor->ParallelFor(4, body);
    EXPECT_EQ(parts, (std::vector<std::int64_t>{0, 1999000, 3998000, 5997000}));
  }

  const std::size_t memory_;
  std::string text_;
};

inline constexpr char kUnary[] = "/test.Test/Unary";
inline constexpr char kAlways[] = "/test.Test/Always";  // Never refused.
inline constexpr char kStream[] = "/test.Test/Stream";

// Everything that a server has between its transport and its core, and counts of what became of it.
class BusyEngine {
 public:
  struct Settings {
    int threads = 2;
    int polling_threads = 2;
    server::Limits limits;
    server::CallLimits calls;
    std::optional<server::CallEngine::Options::Guard> guard = std::nullopt;
    // Adds methods of the test's own.
    std::function<void(const server::RequestServices&, server::MethodTable&)> add_methods;
  };

  explicit BusyEngine(const Settings& settings)
      : executor_({.num_threads = settings.threads, .max_queued_tasks = settings.limits.max_queued_requests}),
        admission_(executor_, settings.limits.max_queued_requests),
        memory_(settings.limits.max_memory_in_flight_bytes) {
    services_ = {.admission = &admission_, .memory = &memory_, .limits = settings.limits};
    const server::Decoder decode = [](const grpc::ByteBuffer& request, const server::DecodeContext&) {
      return std::make_unique<BusyJob>(request);
    };
    server::MethodTable methods;
    methods.Add(kUnary, server::MakeUnaryMethod(services_, {.decode = decode}));
    methods.Add(kAlways, server::MakeUnaryMethod(services_, {.decode = decode,
                                                             .refusable = false,
                                                             .inline_decode_bytes = ~std::size_t{0},
                                                             .decode_memory = 0}));
    methods.Add(kStream, server::MakeStreamMethod(services_, {.attend = {.decode = decode},
                                                              .scaled_dot_product_attention = {.decode = decode}}));
    if (settings.add_methods) settings.add_methods(services_, methods);
    server::CallEngine::Options options{.listen = {"127.0.0.1:0"},
                                        .credentials = grpc::InsecureServerCredentials(),
                                        .configure = nullptr,
                                        .num_polling_threads = settings.polling_threads};
    options.calls = settings.calls;
    options.guard = settings.guard;
    options.memory = &memory_;
    options.on_finished = [this](const server::InboundCall& call, const absl::Status&) {
      finished_bytes_.fetch_add(call.response_bytes(), std::memory_order_relaxed);
    };
    engine_ = *server::CallEngine::Start(std::move(options), std::move(methods));
  }

  // Drains, if that was not done, and looks whether anything was lost.
  ~BusyEngine() {
    if (!drained_) Drain(absl::Seconds(60));
    EXPECT_EQ(engine_->calls_created(), engine_->calls_released());
    EXPECT_EQ(engine_->calls_in_flight(), 0);
    EXPECT_EQ(memory_.in_use_bytes(), 0);
    WaitUntilIdle();
    const server::Admission::Counts tasks = admission_.counts();
    EXPECT_EQ(tasks.queued, tasks.finished + tasks.stopped + tasks.dropped);
    EXPECT_EQ(tasks.started, tasks.finished + tasks.stopped);
  }
  BusyEngine(const BusyEngine&) = delete;
  BusyEngine& operator=(const BusyEngine&) = delete;

  void Drain(absl::Duration timeout) {
    drained_ = true;
    engine_->Drain(timeout);
  }
  // No task waits or runs. A call's end comes within its task, whose turn ends a little later.
  void WaitUntilIdle() const {
    while (admission_.outstanding() != 0) std::this_thread::yield();
  }
  server::CallEngine& engine() { return *engine_; }
  server::MemoryBudget& memory() { return memory_; }
  server::Admission::Counts counts() const { return admission_.counts(); }
  int port() const { return engine_->ports()[0]; }
  std::int64_t finished_bytes() const { return finished_bytes_.load(std::memory_order_relaxed); }

 private:
  Executor executor_;
  server::Admission admission_;
  server::MemoryBudget memory_;
  server::RequestServices services_;
  std::atomic<std::int64_t> finished_bytes_{0};
  std::unique_ptr<server::CallEngine> engine_;
  bool drained_ = false;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_THREADS_BUSY_ENGINE_H_
