// Streams on many threads: requests that finish on polling and compute threads in any order, callers that cancel, are
// late, do not read, or are cut off by the server's end.
#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "attend/v1/attention_service.pb.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::ClientCall;
using ::testing::AnyOf;

// A StreamAttendRequest that carries any bytes where it should carry a request: of either kind, by turns.
std::string Message(std::int64_t id, const std::string& carried, std::int64_t timeout_ms = 0) {
  v1::StreamAttendRequest request;
  request.set_id(id);
  if (timeout_ms > 0) request.mutable_timeout()->set_nanos(static_cast<std::int32_t>(timeout_ms * 1'000'000));
  google::protobuf::UnknownFieldSet field;
  field.AddLengthDelimited(id % 2 == 0 ? v1::StreamAttendRequest::kAttendFieldNumber
                                       : v1::StreamAttendRequest::kScaledDotProductAttentionFieldNumber,
                           carried);
  std::string bytes;
  field.SerializeToString(&bytes);
  return request.SerializeAsString() + bytes;
}

// What the answer to `id` carries, or the code of its error.
struct Answer {
  std::int64_t id = 0;
  std::string carried;
  int code = 0;
};

Answer Parse(const std::string& bytes) {
  google::protobuf::UnknownFieldSet fields;
  Answer answer;
  int kind = 0;  // The field of what is carried.
  if (!fields.ParseFromString(bytes)) return answer;
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields.field(i);
    if (field.number() == 1) answer.id = static_cast<std::int64_t>(field.varint());
    if (field.number() == 3 || field.number() == 5) answer.carried = field.length_delimited(), kind = field.number();
    google::rpc::Status status;
    if (field.number() == 4 && status.ParseFromString(field.length_delimited())) answer.code = status.code();
  }
  const int expected_kind = answer.id % 2 == 0 ? 3 : 5;
  EXPECT_TRUE(kind == 0 || kind == expected_kind) << answer.id;
  return answer;
}

std::string Request(int i) { return (i % 3 == 0 ? "large" : "small") + std::to_string(i); }

// Sends on one thread and receives on another. Every answer must be the right one and come once; returns how many came.
int Converse(ClientCall& call, int requests) {
  std::thread sender([&call, requests] {
    for (int i = 1; i <= requests; ++i) {
      if (!call.Send(Message(i, i % 10 == 0 ? "endless" : Request(i), i % 10 == 0 ? 2 : 0))) return;
    }
    call.HalfClose();
  });
  std::map<std::int64_t, int> seen;
  while (const std::optional<std::string> bytes = call.Receive()) {
    const Answer answer = Parse(*bytes);
    ++seen[answer.id];
    if (answer.id % 10 == 0) {
      // Its timeout is not watched while it computes; it ends when the stream does.
      EXPECT_NE(answer.code, 0) << answer.id;
    } else if (answer.code == 0) {
      EXPECT_EQ(answer.carried, Request(static_cast<int>(answer.id)));
    }
  }
  sender.join();
  for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
  return static_cast<int>(seen.size());
}

std::string Plain(int i) { return Message(i, Request(i)); }

TEST(StreamThreads, EveryRequestIsAnsweredOnce) {
  BusyEngine engine({});
  InThreads(4, [port = engine.port()](int thread) {
    constexpr int kRequests = 150;
    ClientCall call(port, {.method = kStream});
    std::thread sender([&call] {
      for (int i = 1; i <= kRequests; ++i) EXPECT_TRUE(call.Send(Plain(i)));
      call.HalfClose();
    });
    std::map<std::int64_t, int> seen;
    while (const std::optional<std::string> bytes = call.Receive()) {
      const Answer answer = Parse(*bytes);
      ++seen[answer.id];
      EXPECT_TRUE(answer.code == 0 ? answer.carried == Request(static_cast<int>(answer.id)) : answer.code == 14)
          << answer.id << ": " << answer.carried << ", code " << answer.code;
    }
    sender.join();
    EXPECT_EQ(seen.size(), static_cast<std::size_t>(kRequests)) << thread;
    for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
    EXPECT_TRUE(call.Finish().status.ok());
  });
}

// Calls that arrive without a pause: each begins the next before it is handled, and cancels the last. Must outlive the
// engine, whose threads use it.
class Arrivals {
 public:
  static constexpr int kMost = 100000;  // Seconds of them.

  void Begin(int port) {
    port_ = port;
    Next();
  }
  int count() const { return count_.load(); }
  void End() {
    const std::lock_guard<std::mutex> lock(mu_);
    ended_ = true;
    latest_.reset();
  }

 private:
  void Next() {
    const std::lock_guard<std::mutex> lock(mu_);
    if (ended_ || ++count_ == kMost) return;
    latest_ = std::make_unique<ClientCall>(port_, fake_grpc::CallStart{.method = kUnary,
                                                                       .deadline = fake_grpc::CallStart().deadline,
                                                                       .metadata = {},
                                                                       .before_arrival = [this] { Next(); }});
  }

  int port_ = 0;
  std::atomic<int> count_{0};
  std::mutex mu_;
  bool ended_ = false;
  std::unique_ptr<ClientCall> latest_;
};

TEST(StreamThreads, AnAnswerIsNotHeldBackForEverWithoutAPause) {
  Arrivals arrivals;
  BusyEngine engine({.polling_threads = 1});
  arrivals.Begin(engine.port());
  ClientCall call(engine.port(), {.method = kStream});
  for (int i = 1; i <= 3; ++i) {
    EXPECT_TRUE(call.Send(Message(i, "small")));
    EXPECT_TRUE(call.Receive().has_value()) << i;
  }
  EXPECT_LT(arrivals.count(), Arrivals::kMost) << "answered when nothing arrived any more";
  arrivals.End();
}

TEST(StreamThreads, CallersGoAwayInTheMiddle) {
  BusyEngine engine({});
  InThreads(4, [port = engine.port()](int thread) {
    for (int i = 0; i < 20; ++i) {
      ClientCall call(port, {.method = kStream});
      std::thread canceller([&call, i] {
        std::this_thread::sleep_for(std::chrono::microseconds(200 * i));
        call.Cancel();
      });
      if (thread % 2 == 0) {
        Converse(call, 60);
      } else {  // It never reads, so that writing waits for it.
        for (int id = 1; call.Send(Plain(id)); ++id) {
        }
      }
      canceller.join();
      EXPECT_THAT(call.Finish().status.error_code(), AnyOf(grpc::StatusCode::CANCELLED, grpc::StatusCode::OK));
    }
  });
}

TEST(StreamThreads, DeadlinesPassInTheMiddle) {
  BusyEngine engine({});
  InThreads(4, [port = engine.port()](int thread) {
    for (int i = 0; i < 10; ++i) {
      const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(1 + i + thread);
      ClientCall call(port, {.method = kStream, .deadline = deadline});
      call.Send(Message(1000, "endless"));
      Converse(call, 40);
      // OK when all of its endless requests were refused.
      EXPECT_THAT(call.Finish().status.error_code(), AnyOf(grpc::StatusCode::DEADLINE_EXCEEDED, grpc::StatusCode::OK));
    }
  });
  // One is late while it computes, for certain.
  for (auto timeout = std::chrono::milliseconds(5); engine.counts().stopped == 0; timeout *= 2) {
    ClientCall call(engine.port(), {.method = kStream, .deadline = std::chrono::system_clock::now() + timeout});
    call.Send(Message(1, "endless"));
    while (call.Receive().has_value()) {
    }
    EXPECT_EQ(call.Finish().status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
}

TEST(StreamThreads, AMessageThatIsNoneEndsTheStreamBehindItsAnswers) {
  BusyEngine engine({});
  InThreads(4, [port = engine.port()](int) {
    for (int i = 0; i < 10; ++i) {
      ClientCall call(port, {.method = kStream});
      for (int id = 1; id <= 5; ++id) call.Send(Plain(id));
      call.Send("\xff\xff");
      int answers = 0;
      while (call.Receive().has_value()) ++answers;
      EXPECT_EQ(answers, 5);
      EXPECT_EQ(call.Finish().status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    }
  });
}

// What has been read is answered, unless there is no time for it; then all hear that the server stops.
TEST(StreamThreads, TheServerStopsInTheMiddle) {
  for (int round = 0; round < 8; ++round) {
    BusyEngine engine({});
    std::thread drains([&engine, round] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2 * round));
      engine.Drain(round % 3 == 0 ? absl::ZeroDuration() : absl::Seconds(10));
    });
    InThreads(4, [&engine](int) {
      ClientCall call(engine.port(), {.method = kStream});
      std::thread sender([&call] {
        for (int id = 1; call.Send(Plain(id)); ++id) {
        }
      });
      while (call.Receive().has_value()) {
      }
      EXPECT_EQ(call.Finish().status.error_code(), grpc::StatusCode::UNAVAILABLE);
      sender.join();
    });
    drains.join();
  }
}

}  // namespace
}  // namespace attend::testing
