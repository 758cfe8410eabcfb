// A call engine with methods made for tests, so that each station of a call can be held and watched.
#ifndef ATTEND_TESTS_SERVER_ENGINE_FIXTURE_H_
#define ATTEND_TESTS_SERVER_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/runtime/executor.h"
#include "server/rpc/admission.h"
#include "server/rpc/call_engine.h"
#include "server/rpc/request_run.h"
#include "tests/support/raw_call.h"
#include "tests/support/test_server.h"

namespace attend::testing {

// Waits until `condition` holds; false after 20 s, which is then a hang.
template <typename Condition>
bool WaitFor(Condition condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

// What the test jobs did, and the gate at which large ones wait.
struct JobLog {
  std::atomic<int> decoded{0};
  std::atomic<int> decoded_sdpa{0};  // Of those, carried by streams as scaled dot-product attention.
  std::atomic<int> started{0};
  std::atomic<int> stopped_by_flag{0};
  absl::Notification gate;
};

// Answers with its request. Requests that start with `large` go through the executor and stay in Compute until the gate
// opens or they are cancelled; all others are small.
class EchoJob final : public server::Job {
 public:
  EchoJob(JobLog& log, const grpc::ByteBuffer& request) : log_(log), bytes_(request) {
    grpc::Slice flat;
    if (request.DumpToSingleSlice(&flat).ok()) {
      large_ = std::string_view(reinterpret_cast<const char*>(flat.begin()), flat.size()).substr(0, 5) == "large";
    }
  }

  double flops() const override { return large_ ? 1e8 : 1; }  // Milliseconds, so that admission is content.
  double memory_bytes() const override { return static_cast<double>(bytes_.Length()); }

  absl::Status Compute(const ComputeContext& context) override {
    log_.started.fetch_add(1);
    while (large_ && !log_.gate.WaitForNotificationWithTimeout(absl::Milliseconds(1))) {
      if (!context.cancelled->load()) continue;
      log_.stopped_by_flag.fetch_add(1);
      return absl::CancelledError("the flag was raised");
    }
    return absl::OkStatus();
  }

  grpc::ByteBuffer TakeResponse() override { return bytes_; }

 private:
  JobLog& log_;
  grpc::ByteBuffer bytes_;
  bool large_ = false;
};

inline constexpr char kEcho[] = "/test.Test/Echo";      // Refused by a busy server.
inline constexpr char kAlways[] = "/test.Test/Always";  // Never refused.
inline constexpr char kStream[] = "/test.Test/Stream";  // Echoes what the messages of StreamAttend carry.

class EngineFixture : public ::testing::Test {
 protected:
  struct Settings {
    int threads = 1;
    int polling_threads = 1;
    server::Limits limits;
    std::function<void(const server::InboundCall&)> on_started = nullptr;  // See CallEngine::Options.
  };

  void Start(const Settings& settings) {
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    executor_ = std::make_unique<Executor>(
        Executor::Options{.num_threads = settings.threads, .max_queued_tasks = settings.limits.max_queued_requests});
    admission_ = std::make_unique<server::Admission>(*executor_, settings.limits.max_queued_requests);
    memory_ = std::make_unique<server::MemoryBudget>(settings.limits.max_memory_in_flight_bytes);
    services_.admission = admission_.get();
    services_.memory = memory_.get();
    services_.limits = settings.limits;
    const server::Decoder decode = [this](const grpc::ByteBuffer& request, const server::DecodeContext&) {
      log_.decoded.fetch_add(1);
      return std::make_unique<EchoJob>(log_, request);
    };
    server::MethodTable methods;
    methods.Add(kEcho, server::MakeUnaryMethod(services_, {.decode = decode}));
    methods.Add(kAlways, server::MakeUnaryMethod(services_, {.decode = decode,
                                                             .refusable = false,
                                                             .inline_decode_bytes = ~std::size_t{0},
                                                             .decode_memory = 0}));
    const server::Decoder decode_sdpa = [this, decode](const grpc::ByteBuffer& request,
                                                       const server::DecodeContext& context) {
      log_.decoded_sdpa.fetch_add(1);
      return decode(request, context);
    };
    methods.Add(kStream,
                server::MakeStreamMethod(services_, {.attend = {.decode = decode},
                                                     .scaled_dot_product_attention = {.decode = decode_sdpa}}));
    server::CallEngine::Options options;
    options.listen = {"127.0.0.1:0"};
    options.num_polling_threads = settings.polling_threads;
    options.on_started = settings.on_started;
    options.credentials = grpc::InsecureServerCredentials();
    options.configure = [](grpc::ServerBuilder& builder) { builder.SetMaxReceiveMessageSize(-1); };
    auto engine = server::CallEngine::Start(std::move(options), std::move(methods));
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    channel_ = MakeTestChannel(address());
  }

  void TearDown() override {
    if (!log_.gate.HasBeenNotified()) log_.gate.Notify();
    engine_.reset();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(engine_->ports()[0]); }

  JobLog log_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<server::Admission> admission_;
  std::unique_ptr<server::MemoryBudget> memory_;
  server::RequestServices services_;
  std::unique_ptr<server::CallEngine> engine_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SERVER_ENGINE_FIXTURE_H_
