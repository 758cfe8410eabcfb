// The guard has inquiries while calls of all kinds come and go, connections come and the server stops: what it
// counts and looks at is raced for by nobody.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "absl/time/clock.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallUnary;
using fake_grpc::ClientCall;

// A StreamAttendRequest whose field 3, `attend`, is so short a request.
const char kStreamMessage[] = "\x1a\x05small";

// Memory that grows with each look, so that an inquiry is open nearly always. A connection's few bytes are no reason to
// end it.
server::CallEngine::Options::Guard Suspicious(std::atomic<std::int64_t>& looks) {
  server::CallEngine::Options::Guard guard;
  guard.limits.growth_bytes = 1 << 20;
  guard.limits.most_uncounted_bytes = std::int64_t{1} << 60;
  guard.counted_bytes = [&looks] { return -(looks.fetch_add(1) << 21); };
  return guard;
}

TEST(GuardThreadsTest, CallsAreCountedWhileTheyComeAndGo) {
  std::atomic<std::int64_t> looks{0};
  BusyEngine engine({.guard = Suspicious(looks)});
  InThreads(6, [&](int i) {
    const absl::Time end = absl::Now() + absl::Seconds(3);
    while (absl::Now() < end) {
      if (i < 4) {
        EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, i % 2 == 0 ? "small" : "large").ending.status.ok());
      } else {
        ClientCall stream(engine.port(), {.method = kStream});
        for (int message = 0; message < 20; ++message) stream.Send(kStreamMessage);
        if (i == 4) {
          stream.HalfClose();
          EXPECT_TRUE(stream.Finish().status.ok());
        } else {
          stream.Cancel();
        }
      }
    }
  });
  EXPECT_GT(looks.load(), 2) << "it never looked";
  EXPECT_EQ(engine.engine().ended_connections(server::EndReason::kMemory), 0);
}

TEST(GuardThreadsTest, TheServerStopsWhileAnInquiryIsOpen) {
  for (int round = 0; round < 5; ++round) {
    std::atomic<std::int64_t> looks{0};
    BusyEngine engine({.guard = Suspicious(looks)});
    std::atomic<bool> ended{false};
    std::thread caller([&] {
      while (!ended.load()) CallUnary(engine.port(), {.method = kUnary}, "small");
    });
    while (looks.load() < 3) std::this_thread::yield();
    engine.engine().CancelAllCalls();
    ended.store(true);
    caller.join();
    engine.Drain(absl::Seconds(60));
  }
}

TEST(GuardThreadsTest, TrafficWakesIt) {
  server::HandedCalls calls;
  std::atomic<int> looks{0};
  server::ConnectionGuard guard({},
                                {.memory =
                                     [&looks] {
                                       looks.fetch_add(1);
                                       return server::ProcessUse();
                                     },
                                 .traffic = [] { return std::vector<server::ConnectionTraffic>(); },
                                 .next_number = [] { return std::int64_t{0}; },
                                 .shut_down = [](std::int64_t) { return false; },
                                 .give_back_memory = [] {},
                                 .free_bytes = [] { return std::int64_t{0}; },
                                 .questions = [] { return std::vector<std::uint64_t>(); },
                                 .is_any_kept = [] { return false; },
                                 .look_at_threads = [] {},
                                 .add_open_calls = [] {},
                                 .begin_fence = [] {},
                                 .fence_state = [] { return server::FenceState::kPassed; },
                                 .on_ended = [](const server::EndedConnection&) {}},
                                calls);
  guard.Start();
  InThreads(3, [&](int) {
    while (looks.load() < 50) guard.OnTraffic();
  });
  guard.Stop();
}

}  // namespace
}  // namespace attend::testing
