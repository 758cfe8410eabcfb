// The life of a unary call: admission, limits, queue, deadline, cancellation, trailers.
#include "server/rpc/request_run.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/engine_fixture.h"
#include "tests/support/error_details.h"
#include "tests/support/raw_call.h"
#include "tests/support/raw_http2_call.h"

namespace attend::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

using UnaryCallTest = EngineFixture;

TEST_F(UnaryCallTest, SmallRequestsAnswerAndSayWhereTheTimeWent) {
  Start({});
  const RawAnswer answer = CallRaw(channel_, kEcho, "small");
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.response, "small");
  EXPECT_THAT(answer.trailer("server-timing"), MatchesRegex(kTimingPattern));
  EXPECT_EQ(answer.trailers.count("server-timing"), 1u);
}

TEST_F(UnaryCallTest, LargeRequestsAnswerThroughTheExecutor) {
  Start({});
  log_.gate.Notify();
  const std::string request = "large" + std::string(1 << 20, 'x');
  const RawAnswer answer = CallRaw(channel_, kEcho, request);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.response, request);
  EXPECT_THAT(answer.trailer("server-timing"), MatchesRegex(kTimingPattern));
}

TEST_F(UnaryCallTest, EmptyRequestIsARequest) {
  Start({});
  const RawAnswer answer = CallRaw(channel_, kEcho, "");
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(log_.decoded, 1);
}

TEST_F(UnaryCallTest, ManyCallsFromManyConnectionsAllGetTheirOwnAnswer) {
  Start({.threads = 2, .polling_threads = 3, .limits = {.max_queued_requests = 1000}});
  log_.gate.Notify();
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([this, i, &right] {
      const auto channel = MakeTestChannel(address());
      for (int j = 0; j < 100; ++j) {
        const std::string request = (j % 2 == 0 ? "large" : "small") + std::to_string(1000 * i + j);
        const RawAnswer answer = CallRaw(channel, kEcho, request);
        if (answer.status.ok() && answer.response == request) ++right;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 800);
}

TEST_F(UnaryCallTest, UnknownMethodsAreUnimplementedAndStillTimed) {
  Start({});
  for (const char* path : {"/test.Test/Nothing", "/", "/test.Test/echo", "/test.Test/Echo/"}) {
    const RawAnswer answer = CallRaw(channel_, path, "small");
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << path;
    EXPECT_THAT(answer.status.error_message(), HasSubstr(path));
    EXPECT_THAT(answer.trailer("server-timing"), MatchesRegex(kTimingPattern));
    EXPECT_EQ(Detail<google::rpc::ErrorInfo>(answer.status).reason(), "UNKNOWN_METHOD");
  }
  EXPECT_EQ(log_.decoded, 0);
}

TEST_F(UnaryCallTest, RequestOfExactlyTheLimitIsAcceptedAndOneByteMoreIsNot) {
  Start({.limits = {.max_request_bytes = 100000}});
  const RawAnswer fits = CallRaw(channel_, kEcho, std::string(100000, 'x'));
  EXPECT_TRUE(fits.status.ok()) << fits.status.error_message();
  EXPECT_EQ(log_.decoded, 1);
  const RawAnswer over = CallRaw(channel_, kEcho, std::string(100001, 'x'));
  EXPECT_EQ(over.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(over.status.error_message(), HasSubstr("100001"));
  EXPECT_THAT(over.status.error_message(), HasSubstr("--max-request-bytes"));
  EXPECT_THAT(over.trailer("server-timing"), MatchesRegex(kTimingPattern));
  EXPECT_EQ(over.trailers.count("grpc-retry-pushback-ms"), 0u);
  EXPECT_EQ(log_.decoded, 1);
}

TEST_F(UnaryCallTest, CompressedRequestsAreRefusedUnread) {
  Start({});
  // gRPC 1.51 would inflate a bomb to its end before it looked at any limit.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetCompressionAlgorithm(GRPC_COMPRESS_GZIP);
  const auto channel = grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), arguments);
  const RawAnswer answer = CallRaw(channel, kEcho, std::string(1 << 20, 'x'));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << answer.status.error_message();
  EXPECT_EQ(log_.decoded, 0);
}

TEST_F(UnaryCallTest, CallsBeyondTheQueueAreRefusedWithARetryTime) {
  Start({.threads = 1, .limits = {.max_queued_requests = 1}});
  std::vector<std::thread> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back([this] { EXPECT_TRUE(CallRaw(channel_, kEcho, "large").status.ok()); });
    ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == i + 1; }));
  }
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));  // One computes, one waits.
  const int decoded = log_.decoded;
  const RawAnswer refused = CallRaw(channel_, kEcho, "small");
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(log_.decoded, decoded) << "a refused request was read";
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(refused.status).reason(), "QUEUE_FULL");
  const auto delay = Detail<google::rpc::RetryInfo>(refused.status).retry_delay();
  EXPECT_GT(delay.seconds() * 1000000000 + delay.nanos(), 0);
  EXPECT_THAT(refused.trailer("grpc-retry-pushback-ms"), MatchesRegex("[1-9][0-9]*"));
  EXPECT_THAT(refused.trailer("server-timing"), MatchesRegex(kTimingPattern));

  EXPECT_TRUE(CallRaw(channel_, kAlways, "small").status.ok()) << "what is never refused was refused";
  log_.gate.Notify();
  for (std::thread& client : clients) client.join();
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 0; }));
  EXPECT_TRUE(CallRaw(channel_, kEcho, "small").status.ok()) << "the queue did not open again";
}

// A call that sends its request and then reads nothing of the answer, until it is destroyed.
class SilentReader {
 public:
  SilentReader(const std::shared_ptr<grpc::Channel>& channel, const std::string& request) : stub_(channel) {
    call_ = stub_.PrepareCall(&context_, kEcho, &queue_);
    call_->StartCall(&queue_);
    Wait();
    const grpc::Slice slice(request);
    call_->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), &queue_);
    Wait();
  }
  ~SilentReader() {
    context_.TryCancel();
    grpc::Status status;
    call_->Finish(&status, &queue_);
    Wait();
    queue_.Shutdown();
  }

 private:
  void Wait() {
    void* tag = nullptr;
    bool ok = false;
    queue_.Next(&tag, &ok);
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

TEST_F(UnaryCallTest, AnAnswerThatNobodyReadsCountsUntilItsCallEnds) {
  constexpr std::int64_t kMegabyte = 1 << 20;
  Start({.limits = {.max_memory_in_flight_bytes = 10 * kMegabyte}});
  {
    // On a connection of its own, from which nobody reads while the others are called: what the server could not yet
    // send there would hold up the end of every call of that connection.
    const SilentReader silent(MakeTestChannel(address()), std::string(6 * kMegabyte, 'x'));
    ASSERT_TRUE(WaitFor([&] { return log_.started == 1 && admission_->outstanding() == 0; }));
    EXPECT_EQ(memory_->in_use_bytes(), 6 * kMegabyte) << "it is computed, and the answer still there";
    const int decoded = log_.decoded;
    const RawAnswer refused = CallRaw(channel_, kEcho, std::string(5 * kMegabyte, 'x'));
    EXPECT_EQ(log_.decoded, decoded) << "memory was taken for a refused request";
    EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE) << refused.status.error_message();
    EXPECT_EQ(Detail<google::rpc::ErrorInfo>(refused.status).reason(), "MEMORY_BUDGET");
    EXPECT_GT(Detail<google::rpc::RetryInfo>(refused.status).retry_delay().nanos(), 0);
    EXPECT_THAT(refused.trailer("grpc-retry-pushback-ms"), MatchesRegex("[1-9][0-9]*"));
    EXPECT_TRUE(CallRaw(channel_, kEcho, std::string(3 * kMegabyte, 'x')).status.ok()) << "what fits is served";
    EXPECT_TRUE(WaitFor([&] { return memory_->in_use_bytes() == 6 * kMegabyte; })) << "and given back";
  }
  EXPECT_TRUE(WaitFor([&] { return memory_->in_use_bytes() == 0; })) << "the call has ended";
  EXPECT_TRUE(CallRaw(channel_, kEcho, std::string(5 * kMegabyte, 'x')).status.ok());
}

TEST_F(UnaryCallTest, ACallLargerThanTheWholeBudgetIsRefusedForGood) {
  Start({.limits = {.max_memory_in_flight_bytes = 1000}});
  EXPECT_TRUE(CallRaw(channel_, kEcho, std::string(1000, 'x')).status.ok());
  const RawAnswer refused = CallRaw(channel_, kEcho, std::string(1001, 'x'));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("--max-memory-in-flight-bytes"));
  EXPECT_EQ(refused.trailer("grpc-retry-pushback-ms"), "");
}

TEST_F(UnaryCallTest, AJobWhoseDeadlinePassesInTheQueueNeverStarts) {
  Start({.threads = 1, .limits = {.max_queued_requests = 4}});
  std::thread first([this] { EXPECT_TRUE(CallRaw(channel_, kEcho, "large").status.ok()); });
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  // On a busy machine so much of a deadline may pass on the way that the call is refused; then a longer one is needed.
  for (std::chrono::milliseconds timeout(50); admission_->counts().queued < 2; timeout *= 2) {
    const RawAnswer late = CallRaw(channel_, kEcho, "large", {.timeout = timeout});
    ASSERT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 1; }));  // The server has noticed.
    if (late.status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      EXPECT_EQ(Detail<google::rpc::ErrorInfo>(late.status).reason(), "DEADLINE_UNREACHABLE");
    } else {
      EXPECT_EQ(late.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << late.status.error_message();
    }
  }
  log_.gate.Notify();
  first.join();
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 0; }));
  EXPECT_EQ(log_.started, 1);
  EXPECT_EQ(admission_->counts().started, 1);
  EXPECT_EQ(admission_->counts().dropped, admission_->counts().queued - 1);
}

// gRPC rounds what it sends up to the next 0.1 s, and from 100 s on to the next 1 s, 10 s and more.
TEST_F(UnaryCallTest, ADeadlineIsTheCallers) {
  using Time = std::chrono::system_clock;
  Time::time_point deadline;
  Start({.on_started = [&deadline](const server::InboundCall& call) { deadline = call.deadline(); }});
  const std::chrono::seconds timeout(90), rounding(1);
  const Time::time_point before = Time::now();
  EXPECT_TRUE(CallRaw(channel_, kEcho, "small", {.timeout = timeout}).status.ok());
  EXPECT_GE(deadline, before + timeout - rounding);
  EXPECT_LE(deadline, Time::now() + timeout + rounding);
}

// 2562047H is Go's longest time; 99999999H the longest of gRPC's protocol. Neither fits nanoseconds since 1970.
TEST_F(UnaryCallTest, ADeadlineInAFarFutureIsNone) {
  Start({.threads = 1, .limits = {.max_queued_requests = 4}});
  std::thread first([this] { EXPECT_TRUE(CallRaw(channel_, kEcho, "large").status.ok()); });
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  std::vector<std::unique_ptr<RawHttp2Call>> calls;
  for (const char* timeout : {"2562047H", "99999999H"}) {
    const std::string message = std::string("large for ") + timeout;
    const std::string prefix = {0, 0, 0, 0, static_cast<char>(message.size())};
    calls.push_back(std::make_unique<RawHttp2Call>(engine_->ports()[0], kEcho,
                                                   RawHttp2Call::Headers{{"grpc-timeout", timeout}}, prefix + message));
  }
  EXPECT_TRUE(WaitFor([&] { return admission_->counts().refused + admission_->counts().queued == 3; }));
  EXPECT_EQ(admission_->counts().refused, 0);
  log_.gate.Notify();
  first.join();
  EXPECT_TRUE(calls[0]->Receives("large for 2562047H"));
  EXPECT_TRUE(calls[1]->Receives("large for 99999999H"));
}

TEST_F(UnaryCallTest, DeadlineDuringComputeStopsTheJob) {
  Start({.threads = 1});
  // On a busy machine a deadline may pass before the job has begun; then a longer one is needed.
  for (std::chrono::milliseconds timeout(50); log_.started == 0; timeout *= 2) {
    const RawAnswer late = CallRaw(channel_, kEcho, "large", {.timeout = timeout});
    EXPECT_EQ(late.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    ASSERT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 0 && admission_->outstanding() == 0; }));
  }
  EXPECT_TRUE(WaitFor([&] { return log_.stopped_by_flag == 1; }));
}

TEST_F(UnaryCallTest, CancellingStopsTheJob) {
  Start({.threads = 1});
  const auto context =
      std::make_shared<grpc::ClientContext>();  // The call may have returned while TryCancel still runs.
  std::thread canceller([&] {
    EXPECT_TRUE(WaitFor([&] { return log_.started == 1; }));
    context->TryCancel();
  });
  const RawAnswer answer = CallRaw(channel_, kEcho, "large", {.context = context});
  canceller.join();
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(WaitFor([&] { return log_.stopped_by_flag == 1 && engine_->calls_in_flight() == 0; }));
}

TEST_F(UnaryCallTest, AClientThatGoesAwayDuringItsUploadLeavesNothingBehind) {
  Start({});
  {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto call = stub.PrepareCall(&context, kEcho, &queue);
    void* tag = nullptr;
    bool ok = false;
    call->StartCall(&tag);
    ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
    ASSERT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 1; }));
    context.TryCancel();  // The metadata has arrived, the message never will.
    grpc::Status status;
    call->Finish(&status, &tag);
    queue.Next(&tag, &ok);
    queue.Shutdown();
  }
  EXPECT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 0; }));
  EXPECT_EQ(log_.decoded, 0);
  EXPECT_TRUE(CallRaw(channel_, kEcho, "small").status.ok());
}

TEST_F(UnaryCallTest, AConnectionThatBreaksInTheMiddleOfAMessageLeavesNothingBehind) {
  Start({});
  {
    // Of 4096 bytes.
    const RawHttp2Call half(engine_->ports()[0], kEcho, {}, std::string("\0\0\0\x10\0", 5) + "only the beginning");
    ASSERT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 1; }));
  }
  EXPECT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 0; }));
  EXPECT_EQ(log_.decoded, 0);
  EXPECT_TRUE(CallRaw(channel_, kEcho, "small").status.ok());
}

TEST_F(UnaryCallTest, ACallWithoutAMessageIsRefused) {
  Start({});
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareCall(&context, kEcho, &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(&tag);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  call->WritesDone(&tag);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  grpc::Status status;
  call->Finish(&status, &tag);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("one request message"));
}

TEST_F(UnaryCallTest, DrainFinishesSixteenCallsInFlightAndLosesNone) {
  Start({.threads = 2, .limits = {.max_queued_requests = 32}});
  std::vector<std::thread> clients;
  std::atomic<int> answered{0};
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([this, i, &answered] {
      const std::string request = "large" + std::to_string(i);
      const RawAnswer answer = CallRaw(MakeTestChannel(address()), kEcho, request);
      EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
      if (answer.response == request) ++answered;
    });
  }
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 16; }));
  std::thread drain([this] { engine_->Drain(absl::Seconds(20)); });
  absl::SleepFor(absl::Milliseconds(20));
  log_.gate.Notify();
  drain.join();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 16);
  EXPECT_FALSE(CallRaw(MakeTestChannel(address()), kEcho, "small").status.ok());
}

TEST_F(UnaryCallTest, CallsDuringADrainAreRefusedWithARetryTimeWhileThoseInFlightGoOn) {
  Start({.threads = 1});
  std::thread in_flight([this] { EXPECT_TRUE(CallRaw(channel_, kEcho, "large").status.ok()); });
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  const absl::Time start = absl::Now();
  std::thread drain([this] { engine_->Drain(absl::Seconds(20)); });
  RawAnswer refused;  // The first ones may come before the drain.
  EXPECT_TRUE(WaitFor([&] { return !(refused = CallRaw(channel_, kEcho, "small")).status.ok(); }));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE) << refused.status.error_message();
  // A second after the drain's start connections are told to go elsewhere: where the machine stood still for so long
  // that is the answer.
  if (!refused.trailers.empty() || absl::Now() - start < absl::Seconds(1)) {
    EXPECT_EQ(Detail<google::rpc::ErrorInfo>(refused.status).reason(), "DRAINING");
    EXPECT_EQ(refused.trailer("grpc-retry-pushback-ms"), "1000");
    EXPECT_THAT(refused.trailer("server-timing"), MatchesRegex(kTimingPattern));
  }
  EXPECT_EQ(CallRaw(channel_, kAlways, "small").status.error_code(), grpc::StatusCode::UNAVAILABLE);
  log_.gate.Notify();
  in_flight.join();
  drain.join();
}

TEST_F(UnaryCallTest, DrainCancelsWhatDoesNotFinishInTime) {
  Start({.threads = 1});
  std::thread client([this] { EXPECT_FALSE(CallRaw(channel_, kEcho, "large").status.ok()); });
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  engine_->Drain(absl::Milliseconds(10));
  client.join();
  EXPECT_EQ(log_.stopped_by_flag, 1);
}

// gRPC gives one that is told to go elsewhere, and says nothing, 20 seconds.
TEST_F(UnaryCallTest, DrainClosesConnectionsWithoutCallsAtOnce) {
  Start({.threads = 1});
  RawHttp2Call silent(engine_->ports()[0], kEcho, {}, std::string("\0\0\0\0\x05", 5) + "small");
  ASSERT_TRUE(silent.Receives("small"));
  ASSERT_TRUE(WaitFor([&] { return engine_->calls_in_flight() == 0; }));
  const absl::Time start = absl::Now();
  engine_->Drain(absl::Hours(1));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST_F(UnaryCallTest, ForceStopEndsADrainThatWaits) {
  Start({.threads = 1});
  std::thread client([this] { EXPECT_FALSE(CallRaw(channel_, kEcho, "large").status.ok()); });
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  std::thread drain([this] { engine_->Drain(absl::Hours(1)); });
  absl::SleepFor(absl::Milliseconds(10));
  engine_->CancelAllCalls();
  drain.join();
  client.join();
  EXPECT_EQ(log_.stopped_by_flag, 1);
}

}  // namespace
}  // namespace attend::testing
