// The life of a stream of requests: order, failures, limits, flow control, deadline, cancellation, drain.
#include "server/rpc/request_run.h"

#include <gmock/gmock.h>

#include <set>
#include <thread>

#include "tests/server/engine_fixture.h"
#include "tests/support/error_details.h"
#include "tests/support/raw_call.h"
#include "tests/support/raw_stream.h"

namespace attend::testing {
namespace {

using ::testing::MatchesRegex;

// Field `timeout` of StreamAttendRequest, of so many seconds or nanoseconds, each below 128.
std::string Timeout(char seconds, char nanos = 0) { return std::string("\x12\x04\x08") + seconds + '\x10' + nanos; }

class StreamCallTest : public EngineFixture {
 protected:
  // Receives the answer to `id`, which must be next and fail with `code`.
  google::rpc::Status ReceiveError(RawStream& stream, std::int64_t id, absl::StatusCode code) {
    const std::optional<StreamAnswer> answer = stream.Receive();
    if (!answer || !answer->status) {
      ADD_FAILURE() << "no error for request " << id;
      return {};
    }
    EXPECT_EQ(answer->id, id);
    EXPECT_FALSE(answer->attend.has_value());
    EXPECT_EQ(answer->status->code(), static_cast<int>(code)) << answer->status->message();
    EXPECT_THAT(answer->server_timing, MatchesRegex(kTimingPattern));
    return *answer->status;
  }

  void ReceiveResult(RawStream& stream, std::int64_t id, const std::string& expected) {
    const std::optional<StreamAnswer> answer = stream.Receive();
    ASSERT_TRUE(answer.has_value()) << "no answer to request " << id;
    EXPECT_EQ(answer->id, id);
    ASSERT_TRUE(answer->attend.has_value()) << answer->status->message();
    EXPECT_TRUE(*answer->attend == expected);
    EXPECT_FALSE(answer->status.has_value());
    EXPECT_THAT(answer->server_timing, MatchesRegex(kTimingPattern));
  }

  // Receives the end, which must be `code`.
  grpc::Status ReceiveEnd(RawStream& stream, grpc::StatusCode code) {
    EXPECT_FALSE(stream.Receive().has_value()) << "an answer too many";
    grpc::Status status = stream.Finish();
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    return status;
  }
};

TEST_F(StreamCallTest, EachRequestIsAnsweredOnceWithItsIdAndHalfCloseEndsWithOk) {
  Start({});
  RawStream stream(channel_, kStream);
  std::set<std::int64_t> expected;
  std::thread sender([&] {
    for (std::int64_t id = 0; id < 1000; ++id) EXPECT_TRUE(stream.Send(id, "small" + std::to_string(id)));
    stream.HalfClose();
  });
  std::set<std::int64_t> answered;
  while (const std::optional<StreamAnswer> answer = stream.Receive()) {
    EXPECT_EQ(answer->attend, "small" + std::to_string(answer->id));
    EXPECT_TRUE(answered.insert(answer->id).second) << "answered twice: " << answer->id;
  }
  sender.join();
  EXPECT_EQ(answered.size(), 1000u);
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_THAT(stream.trailer("server-timing"), MatchesRegex(kTimingPattern));
  EXPECT_TRUE(WaitFor([&] { return memory_->in_use_bytes() == 0; }));
}

TEST_F(StreamCallTest, StreamWithoutRequestsEndsWithOk) {
  Start({});
  RawStream stream(channel_, kStream);
  stream.HalfClose();
  ReceiveEnd(stream, grpc::StatusCode::OK);
}

TEST_F(StreamCallTest, SlowRequestsHoldUpNoOther) {
  Start({});
  RawStream stream(channel_, kStream);
  ASSERT_TRUE(stream.Send(1, "large"));
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  ASSERT_TRUE(stream.Send(2, "small"));
  ReceiveResult(stream, 2, "small");
  stream.HalfClose();
  log_.gate.Notify();
  ReceiveResult(stream, 1, "large");
  ReceiveEnd(stream, grpc::StatusCode::OK);
}

TEST_F(StreamCallTest, BadRequestsAnswerWithTheStatusOfAUnaryCallAndDoNotEndTheStream) {
  Start({.limits = {.max_request_bytes = 100}});
  RawStream stream(channel_, kStream);
  const std::string too_large(101, 'x');
  ASSERT_TRUE(stream.Send(1, too_large));
  const google::rpc::Status status = ReceiveError(stream, 1, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.SerializeAsString(), CallRaw(channel_, kEcho, too_large).trailer("grpc-status-details-bin"));

  ASSERT_TRUE(stream.SendMessage("\x08\x02"));
  EXPECT_EQ(Detail<google::rpc::BadRequest>(ReceiveError(stream, 2, absl::StatusCode::kInvalidArgument))
                .field_violations(0)
                .field(),
            "request");
  for (const std::string& timeout : {Timeout(0), std::string("\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")}) {
    ASSERT_TRUE(stream.SendMessage("\x08\x03" + timeout + LengthDelimited(3, "small")));
    EXPECT_EQ(Detail<google::rpc::BadRequest>(ReceiveError(stream, 3, absl::StatusCode::kInvalidArgument))
                  .field_violations(0)
                  .field(),
              "timeout");
  }
  ASSERT_TRUE(stream.Send(4, "small"));
  ReceiveResult(stream, 4, "small");
}

TEST_F(StreamCallTest, EachKindOfRequestGoesToItsDecoderAndIsAnsweredAsThatKind) {
  Start({});
  log_.gate.Notify();
  RawStream stream(channel_, kStream);
  for (const char* carried : {"small", "large"}) {
    ASSERT_TRUE(stream.SendMessage("\x08\x01" + LengthDelimited(4, carried)));
    const std::optional<StreamAnswer> answer = stream.Receive();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->scaled_dot_product_attention, carried);
    EXPECT_FALSE(answer->attend || answer->status);
    EXPECT_THAT(answer->server_timing, MatchesRegex(kTimingPattern));
  }
  EXPECT_EQ(log_.decoded_sdpa, 2);
  ASSERT_TRUE(stream.Send(2, "small"));
  ReceiveResult(stream, 2, "small");
  EXPECT_EQ(log_.decoded_sdpa, 2);
  // Of both kinds the last one counts.
  ASSERT_TRUE(stream.SendMessage("\x08\x03" + LengthDelimited(4, "dropped") + LengthDelimited(3, "small")));
  ReceiveResult(stream, 3, "small");
  EXPECT_EQ(log_.decoded_sdpa, 2);
}

TEST_F(StreamCallTest, UnreadableMessageEndsTheStreamAfterTheAnswersBeforeIt) {
  Start({});
  RawStream stream(channel_, kStream);
  ASSERT_TRUE(stream.Send(1, "large"));
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  ASSERT_TRUE(stream.SendMessage("\x08\x02\x1a\x7fshort"));
  stream.Send(3, "small");
  log_.gate.Notify();
  ReceiveResult(stream, 1, "large");
  const grpc::Status end = ReceiveEnd(stream, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(end).metadata().at("byte_position"), "2");
  EXPECT_EQ(log_.decoded, 1);
}

TEST_F(StreamCallTest, RequestsBeyondTheQueueAreRefusedWithARetryTime) {
  Start({.threads = 1, .limits = {.max_queued_requests = 1}});
  RawStream stream(channel_, kStream);
  for (std::int64_t id = 0; id < 2; ++id) ASSERT_TRUE(stream.Send(id, "large"));
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 2; }));
  ASSERT_TRUE(stream.Send(2, "large"));
  const google::rpc::Status status = ReceiveError(stream, 2, absl::StatusCode::kUnavailable);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "QUEUE_FULL");
  const auto delay = Detail<google::rpc::RetryInfo>(status).retry_delay();
  EXPECT_GT(delay.seconds() * 1000000000 + delay.nanos(), 0);
  ASSERT_TRUE(stream.Send(3, "small"));
  ReceiveResult(stream, 3, "small");  // What waits for no compute thread is not refused for want of one.
}

TEST_F(StreamCallTest, NoMoreThanTheLimitIsInFlight) {
  Start({.limits = {.max_stream_requests_in_flight = 2}});
  RawStream stream(channel_, kStream);
  for (std::int64_t id = 0; id < 3; ++id) ASSERT_TRUE(stream.Send(id, "large"));
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  EXPECT_TRUE(CallRaw(channel_, kAlways, "small").status.ok());  // By now it would have been read.
  EXPECT_EQ(log_.decoded, 3);                                    // Two of the stream and the call.
  log_.gate.Notify();
  for (std::int64_t id = 0; id < 3; ++id) ReceiveResult(stream, id, "large");
}

TEST_F(StreamCallTest, CallerWhoDoesNotReadIsNotRead) {
  constexpr int kRequests = 600;
  Start({.limits = {.max_stream_requests_in_flight = 8}});
  const std::string request(60000, 'x');
  RawStream stream(channel_, kStream);
  std::atomic<int> sent{0};
  std::thread sender([&] {
    for (int i = 0; i < kRequests && stream.Send(1, request); ++i) ++sent;
    stream.HalfClose();
  });
  // What is on its way fills up; then nothing moves any more, and answers are there that nobody takes.
  int before = -1;
  ASSERT_TRUE(WaitFor([&] {
    absl::SleepFor(absl::Milliseconds(300));
    return std::exchange(before, sent.load()) == sent.load() && sent > 8 && memory_->in_use_bytes() > 0;
  }));
  EXPECT_LT(sent, kRequests);
  EXPECT_LE(memory_->in_use_bytes(), 8 * 60000);
  int answers = 0;
  while (stream.Receive()) ++answers;
  sender.join();
  EXPECT_EQ(answers, kRequests);
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_TRUE(WaitFor([&] { return memory_->in_use_bytes() == 0; }));
}

TEST_F(StreamCallTest, HalfTheMemoryBudgetIsWhatStreamsFill) {
  Start({.limits = {.max_queued_requests = 100, .max_memory_in_flight_bytes = 100000}});
  RawStream stream(channel_, kStream);
  const std::string request = "large" + std::string(20000, 'x');
  std::thread sender([&] {
    for (std::int64_t id = 0; id < 20; ++id) EXPECT_TRUE(stream.Send(id, request));
    stream.HalfClose();
  });
  ASSERT_TRUE(WaitFor([&] { return log_.decoded == 3; }));
  EXPECT_TRUE(CallRaw(channel_, kAlways, "small").status.ok());
  EXPECT_EQ(log_.decoded, 4);
  log_.gate.Notify();
  for (std::int64_t id = 0; id < 20; ++id) ReceiveResult(stream, id, request);  // None is refused.
  ReceiveEnd(stream, grpc::StatusCode::OK);
  sender.join();
}

TEST_F(StreamCallTest, CancelStopsWhatRunsDropsWhatWaitsAndReleasesAll) {
  Start({.threads = 1});
  RawStream stream(channel_, kStream);
  const std::string request = "large" + std::string(1 << 20, 'x');
  for (std::int64_t id = 0; id < 4; ++id) ASSERT_TRUE(stream.Send(id, request));
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1 && admission_->outstanding() == 4; }));
  stream.Cancel();
  ReceiveEnd(stream, grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 0; }));
  EXPECT_EQ(log_.stopped_by_flag, 1);
  EXPECT_EQ(log_.started, 1);
  EXPECT_TRUE(WaitFor([&] { return memory_->in_use_bytes() == 0; }));
}

TEST_F(StreamCallTest, CallerThatVanishesReleasesAll) {
  Start({.threads = 1});
  {
    RawStream stream(MakeTestChannel(address()), kStream);
    for (std::int64_t id = 0; id < 4; ++id) ASSERT_TRUE(stream.Send(id, "large"));
    ASSERT_TRUE(WaitFor([&] { return log_.started == 1 && admission_->outstanding() == 4; }));
    stream.Cancel();
  }
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 0 && memory_->in_use_bytes() == 0; }));
  EXPECT_EQ(log_.started, 1);
}

TEST_F(StreamCallTest, DeadlineOfTheStreamBoundsAll) {
  Start({.threads = 1});
  // On a busy machine so much of a deadline may pass on the way that it is over, or requests are refused for its sake;
  // then a longer one is needed.
  std::int64_t queued = 0;
  for (std::chrono::milliseconds timeout(300); queued < 3; timeout *= 2) {
    const std::int64_t queued_before = admission_->counts().queued;
    const int started_before = log_.started;
    RawStream stream(channel_, kStream, timeout);
    for (std::int64_t id = 0; id < 3 && stream.Send(id, "large"); ++id) {
    }
    int answers = 0;
    while (stream.Receive().has_value()) ++answers;
    const grpc::Status end = stream.Finish();
    EXPECT_EQ(end.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << end.error_message();
    ASSERT_TRUE(WaitFor([&] {
      return engine_->calls_in_flight() == 0 && admission_->outstanding() == 0 && memory_->in_use_bytes() == 0;
    }));
    EXPECT_LE(log_.started, started_before + 1);
    queued = admission_->counts().queued - queued_before;
    EXPECT_TRUE(answers == 0 || queued < 3) << answers << " answers too many";
  }
}

TEST_F(StreamCallTest, RequestWhoseTimeoutPassesInTheQueueIsDropped) {
  Start({.threads = 1});
  RawStream stream(channel_, kStream);
  ASSERT_TRUE(stream.Send(1, "large"));
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  ASSERT_TRUE(stream.SendMessage("\x08\x02" + Timeout(3) + LengthDelimited(3, "large")));
  ASSERT_TRUE(stream.SendMessage("\x08\x03" + Timeout(100) + LengthDelimited(3, "large")));
  ASSERT_TRUE(WaitFor([&] { return admission_->outstanding() == 3; }));
  absl::SleepFor(absl::Milliseconds(3100));
  log_.gate.Notify();
  ReceiveResult(stream, 1, "large");
  ReceiveError(stream, 2, absl::StatusCode::kDeadlineExceeded);
  ReceiveResult(stream, 3, "large");
  EXPECT_EQ(log_.started, 2);
}

TEST_F(StreamCallTest, DrainAnswersWhatWasReadAndThenSendsTheCallerElsewhere) {
  Start({});
  RawStream stream(channel_, kStream);
  ASSERT_TRUE(stream.Send(1, "large"));
  ASSERT_TRUE(WaitFor([&] { return log_.started == 1; }));
  std::thread drain([&] { engine_->Drain(absl::Seconds(20)); });
  ASSERT_TRUE(WaitFor([&] { return CallRaw(channel_, kAlways, "small").status.error_code() != grpc::StatusCode::OK; }));
  log_.gate.Notify();
  ReceiveResult(stream, 1, "large");
  const grpc::Status end = ReceiveEnd(stream, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(end).reason(), "DRAINING");
  EXPECT_GT(Detail<google::rpc::RetryInfo>(end).retry_delay().seconds(), 0);
  drain.join();
}

TEST_F(StreamCallTest, DrainEndsAnIdleStream) {
  Start({});
  RawStream stream(channel_, kStream);
  ASSERT_TRUE(stream.Send(1, "small"));
  ReceiveResult(stream, 1, "small");
  std::thread drain([&] { engine_->Drain(absl::Seconds(20)); });
  ReceiveEnd(stream, grpc::StatusCode::UNAVAILABLE);
  drain.join();
}

TEST_F(StreamCallTest, ManyStreamsAtOnceAllGetTheirOwnAnswers) {
  Start({.threads = 2, .polling_threads = 2, .limits = {.max_queued_requests = 1000}});
  log_.gate.Notify();
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([this, i, &right] {
      RawStream stream(MakeTestChannel(address()), kStream);
      const auto request = [i](std::int64_t id) {
        return (id % 3 == 0 ? "large" : "small") + std::to_string(1000 * i + id);
      };
      std::thread sender([&] {
        for (std::int64_t id = 0; id < 200; ++id) stream.Send(id, request(id));
        stream.HalfClose();
      });
      while (const std::optional<StreamAnswer> answer = stream.Receive()) {
        if (answer->attend == request(answer->id)) ++right;
      }
      sender.join();
      EXPECT_TRUE(stream.Finish().ok());
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 6 * 200);
}

}  // namespace
}  // namespace attend::testing
