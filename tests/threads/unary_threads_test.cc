// Unary calls on many threads: computed, refused, cancelled, late, and cut off by the server's end. ThreadSanitizer
// judges; the counts say that nothing was lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <string>
#include <thread>

#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallUnary;
using fake_grpc::ClientCall;
using fake_grpc::UnaryAnswer;
using ::testing::AnyOf;
using ::testing::Contains;

std::chrono::system_clock::time_point In(std::chrono::microseconds time) {
  return std::chrono::system_clock::now() + time;
}

// More than kInlineDecodeBytes, so that it is decoded on a compute thread too.
std::string Large(int number, std::size_t bytes) { return "large" + std::to_string(number) + std::string(bytes, 'x'); }

void Answers(int port, const char* method, const std::string& request) {
  const UnaryAnswer answer = CallUnary(port, {.method = method}, request);
  ASSERT_TRUE(answer.ending.status.ok()) << answer.ending.status.error_message();
  EXPECT_EQ(answer.response, request);
  EXPECT_EQ(answer.ending.trailers.count("server-timing"), 1u);
}

void IsCancelled(int port, const std::string& request, std::chrono::microseconds after) {
  ClientCall call(port, {.method = kUnary});
  call.Send(request);
  call.HalfClose();
  if (after.count() > 0) std::this_thread::sleep_for(after);
  call.Cancel();
  EXPECT_EQ(call.Finish().status.error_code(), grpc::StatusCode::CANCELLED);
}

void RunsOutOfTime(int port) {
  const UnaryAnswer answer =
      CallUnary(port, {.method = kUnary, .deadline = In(std::chrono::milliseconds(2))}, "endless");
  EXPECT_THAT(answer.ending.status.error_code(),
              AnyOf(grpc::StatusCode::DEADLINE_EXCEEDED, grpc::StatusCode::UNAVAILABLE));
}

void SendsNothing(int port) {
  ClientCall call(port, {.method = kUnary});
  call.HalfClose();
  EXPECT_EQ(call.Finish().status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

void AsksForAnotherMethod(int port) {
  const UnaryAnswer answer = CallUnary(port, {.method = "/test.Test/None"}, "x");
  EXPECT_EQ(Reason(answer.ending.status), "UNKNOWN_METHOD");
}

// REQUIRES: none did.
void WaitUntilOneComputes(const BusyEngine& engine) {
  for (;;) {
    const server::Admission::Counts tasks = engine.counts();
    if (tasks.started != tasks.finished + tasks.stopped) return;
    std::this_thread::yield();
  }
}

TEST(UnaryThreads, CallsAreAnsweredCancelledAndLateAtOnce) {
  BusyEngine engine({});
  InThreads(6, [port = engine.port()](int thread) {
    for (int i = 0; i < 60; ++i) {
      switch ((thread + i) % 8) {
        case 0: Answers(port, kUnary, "small" + std::to_string(i)); break;
        case 1: Answers(port, kAlways, "small" + std::to_string(i)); break;
        case 2: Answers(port, kUnary, Large(i, 10)); break;
        case 3: Answers(port, kUnary, Large(i, 100'000)); break;
        case 4: IsCancelled(port, "endless", std::chrono::microseconds(50 * (i % 20))); break;
        case 5: RunsOutOfTime(port); break;
        case 6: SendsNothing(port); break;
        default: AsksForAnotherMethod(port); break;
      }
    }
  });
  // One is cancelled while it computes, for certain.
  engine.WaitUntilIdle();
  const std::int64_t stopped = engine.counts().stopped;
  ClientCall call(engine.port(), {.method = kUnary});
  call.Send("endless");
  WaitUntilOneComputes(engine);
  call.Cancel();
  while (engine.counts().stopped == stopped) std::this_thread::yield();
  EXPECT_GT(engine.counts().finished, 0);
  EXPECT_GT(engine.finished_bytes(), 0);
}

// One compute thread, little room to wait and little memory: every way to be refused, and no more.
TEST(UnaryThreads, WhoFindsNoRoomIsRefusedAndSoIsWhoFindsNoMemory) {
  server::Limits limits;
  limits.max_queued_requests = 2;
  limits.max_memory_in_flight_bytes = 500'000;
  BusyEngine engine({.threads = 1, .limits = limits});
  Mutex mutex;
  std::set<std::string> reasons;
  std::atomic<int> answered{0};
  InThreads(8, [&](int thread) {
    for (int i = 0; i < 40; ++i) {
      const std::string request = Large(i, thread % 2 == 0 ? 10 : 100'000);
      const UnaryAnswer answer = CallUnary(engine.port(), {.method = kUnary}, request);
      if (answer.ending.status.ok()) {
        EXPECT_EQ(answer.response, request);
        answered.fetch_add(1);
        continue;
      }
      EXPECT_EQ(answer.ending.status.error_code(), grpc::StatusCode::UNAVAILABLE);
      EXPECT_EQ(answer.ending.trailers.count("grpc-retry-pushback-ms"), 1u);
      const MutexLock lock(mutex);
      reasons.insert(Reason(answer.ending.status));
    }
  });
  // Both kinds, held in place: the compute thread by a call without end, the memory by hand.
  engine.WaitUntilIdle();
  ClientCall holds(engine.port(), {.method = kUnary});
  holds.Send("endless");
  WaitUntilOneComputes(engine);
  auto memory = engine.memory().Reserve(450'000);
  while (!memory.ok()) memory = engine.memory().Reserve(450'000);  // The last calls are giving theirs back.
  reasons.insert(Reason(CallUnary(engine.port(), {.method = kUnary}, std::string(100'000, 'x')).ending.status));
  for (int tries = 0; tries < 100 && reasons.count("QUEUE_FULL") == 0; ++tries) {
    InThreads(4, [&](int) {
      const UnaryAnswer answer =
          CallUnary(engine.port(), {.method = kUnary, .deadline = In(std::chrono::milliseconds(200))}, "large");
      const MutexLock lock(mutex);
      if (!answer.ending.status.ok()) reasons.insert(Reason(answer.ending.status));
    });
  }
  EXPECT_THAT(reasons, Contains("QUEUE_FULL"));
  EXPECT_THAT(reasons, Contains("MEMORY_BUDGET"));
  EXPECT_GT(answered.load(), 0);
}

// The server stops while calls come in, compute, and are cancelled; each time a little later.
TEST(UnaryThreads, TheServerStopsInTheMiddle) {
  for (int round = 0; round < 10; ++round) {
    BusyEngine engine({});
    std::thread drains([&engine, round] {
      std::this_thread::sleep_for(std::chrono::milliseconds(round));
      engine.Drain(round % 3 == 0 ? absl::ZeroDuration() : absl::Milliseconds(300));
    });
    InThreads(4, [&engine, round](int thread) {
      for (int i = 0; i < 200; ++i) {
        const std::string request = thread == 3 ? "endless" : thread % 2 == 0 ? "small" : Large(i, 10);
        ClientCall call(engine.port(), {.method = kUnary});
        call.Send(request);
        call.HalfClose();
        if (thread == 3 && round % 2 == 0) call.Cancel();
        const grpc::Status status = call.Finish().status;
        if (status.ok() || status.error_code() == grpc::StatusCode::CANCELLED) continue;
        EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
        if (Reason(status) != "QUEUE_FULL") return;  // It has stopped.
      }
    });
    drains.join();
  }
}

// A second SIGTERM: all calls are cancelled, from a thread that is neither theirs nor a client's.
TEST(UnaryThreads, AllCallsAreCancelledAtOnce) {
  BusyEngine engine({});
  std::atomic<int> cancelled{0};
  std::atomic<bool> done{false};
  std::thread cancels([&] {
    while (!done.load()) engine.engine().CancelAllCalls();
  });
  InThreads(4, [&](int thread) {
    for (int i = 0; i < 50; ++i) {
      const UnaryAnswer answer = CallUnary(engine.port(), {.method = kUnary}, thread % 2 == 0 ? "endless" : "small");
      if (!answer.ending.status.ok()) cancelled.fetch_add(1);
    }
  });
  done.store(true);
  cancels.join();
  EXPECT_GE(cancelled.load(), 100) << "those without end have no other";
}

}  // namespace
}  // namespace attend::testing
