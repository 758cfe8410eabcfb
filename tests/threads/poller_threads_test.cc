// A poller whose threads are kept inside gRPC: the next serves the others meanwhile, and all at once lose nothing.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "server/rpc/poller.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallStart;
using fake_grpc::CallUnary;
using fake_grpc::ClientCall;

// Long enough for the slowest machine; a server that serves nobody meanwhile reaches it.
constexpr absl::Duration kTooLong = absl::Seconds(60);

// A call whose arrival keeps the thread that takes it busy until `served` is true.
CallStart Keeping(const std::atomic<bool>& served) {
  return {.method = kUnary, .deadline = CallStart().deadline, .metadata = {}, .before_arrival = [&served] {
            const absl::Time end = absl::Now() + kTooLong;
            while (!served.load() && absl::Now() < end) {
            }
          }};
}

TEST(PollerThreadsTest, OthersAreServedWhileTheFirstThreadIsKept) {
  std::array<std::atomic<bool>, 3> served{};
  BusyEngine engine({.polling_threads = 1});
  for (std::atomic<bool>& round : served) {
    ClientCall keeping(engine.port(), Keeping(round));
    const absl::Time start = absl::Now();
    for (int i = 0; i < 10; ++i) {
      EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, i % 2 == 0 ? "small" : "large").ending.status.ok());
    }
    EXPECT_LT(absl::Now() - start, kTooLong);
    round.store(true);
    keeping.Send("small");
    keeping.HalfClose();
    EXPECT_TRUE(keeping.Finish().status.ok());
  }
}

TEST(PollerThreadsTest, OthersAreServedWhileAllThreadsButOneAreKept) {
  std::atomic<bool> served{false};
  BusyEngine engine({.polling_threads = 1});
  std::vector<std::unique_ptr<ClientCall>> keeping;
  for (std::size_t i = 1; i < server::Poller::kThreads; ++i) {
    keeping.push_back(std::make_unique<ClientCall>(engine.port(), Keeping(served)));
  }
  const absl::Time start = absl::Now();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, "small").ending.status.ok());
  }
  EXPECT_LT(absl::Now() - start, kTooLong);
  served.store(true);
  for (const auto& call : keeping) {
    call->Send("small");
    call->HalfClose();
    EXPECT_TRUE(call->Finish().status.ok());
  }
}

TEST(PollerThreadsTest, BothThreadsTakeEventsOfTheSameCalls) {
  BusyEngine engine({.polling_threads = 1});
  std::atomic<bool> ended{false};
  std::thread keeper([&] {
    for (int round = 0; round < 20; ++round) {
      // Keeps one thread for 30 ms, whichever takes it: the other comes and goes.
      ClientCall kept(engine.port(),
                      {.method = kUnary, .deadline = CallStart().deadline, .metadata = {}, .before_arrival = [] {
                         const absl::Time end = absl::Now() + absl::Milliseconds(30);
                         while (absl::Now() < end) {
                         }
                       }});
      kept.Send("small");
      kept.HalfClose();
      EXPECT_TRUE(kept.Finish().status.ok());
    }
    ended.store(true);
  });
  InThreads(6, [&](int i) {
    while (!ended.load()) {
      if (i % 3 == 0) const ClientCall cancelled(engine.port(), {.method = i == 0 ? kUnary : kStream});
      EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, i % 2 == 0 ? "small" : "large").ending.status.ok());
    }
  });
  keeper.join();
}

TEST(PollerThreadsTest, ACallEndsBeforeItsArrivalIsHandled) {
  std::array<std::atomic<bool>, 4> served{};  // Read by the engine's threads until it ends.
  BusyEngine engine({.polling_threads = 1});
  for (std::size_t round = 0; round < served.size(); ++round) {
    CallStart start = Keeping(served[round]);
    start.method = round % 2 == 0 ? kUnary : kStream;
    ClientCall(engine.port(), start).Cancel();
    // Behind the end of that in the queue.
    EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, "small").ending.status.ok());
    served[round].store(true);
  }
}

TEST(PollerThreadsTest, TheServerStopsWhileItsFirstThreadIsKept) {
  std::atomic<bool> served{false};
  BusyEngine engine({.polling_threads = 1});
  ClientCall keeping(engine.port(), Keeping(served));
  EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, "small").ending.status.ok());
  std::thread drain([&] { engine.Drain(absl::Seconds(60)); });
  served.store(true);
  drain.join();
}

}  // namespace
}  // namespace attend::testing
