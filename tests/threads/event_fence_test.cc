// When what gRPC has read has been handled: at once on an idle engine, once a thread that is kept has worked for a
// while, also after threads have stood in for others, and never while all threads are kept.
#include "server/rpc/event_fence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "server/rpc/poller.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallStart;
using fake_grpc::CallUnary;
using fake_grpc::ClientCall;
using server::EventFence;
using server::FenceState;

constexpr absl::Duration kTooLong = absl::Seconds(60);

// A call whose arrival keeps the thread that takes it busy until `goes_on` is true.
std::unique_ptr<ClientCall> Keep(const BusyEngine& engine, const std::atomic<bool>& goes_on) {
  CallStart start{.method = kUnary, .deadline = CallStart().deadline, .metadata = {}, .before_arrival = [&goes_on] {
                    const absl::Time end = absl::Now() + kTooLong;
                    while (!goes_on.load() && absl::Now() < end) {
                    }
                  }};
  return std::make_unique<ClientCall>(engine.port(), start);
}

void Finish(ClientCall& call) {
  call.Send("small");
  call.HalfClose();
  EXPECT_TRUE(call.Finish().status.ok());
}

void ServeSome(const BusyEngine& engine) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(CallUnary(engine.port(), {.method = kUnary}, "small").ending.status.ok());
  }
}

FenceState WaitFor(EventFence& fence) {
  fence.Begin();
  const absl::Time end = absl::Now() + kTooLong;
  FenceState state = FenceState::kWaits;
  while (state == FenceState::kWaits && absl::Now() < end) {
    absl::SleepFor(absl::Milliseconds(3));
    state = fence.Look();
  }
  return state;
}

TEST(EventFenceTest, PassesWhileNothingHappens) {
  BusyEngine engine({.polling_threads = 2});
  EventFence fence = engine.engine().MakeFence();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(WaitFor(fence), FenceState::kPassed);
}

TEST(EventFenceTest, PassesBesideKeptThreadsAndAfterThem) {
  std::atomic<bool> first_goes_on{false}, second_goes_on{false};
  BusyEngine engine({.polling_threads = 1});
  EventFence fence = engine.engine().MakeFence();
  const auto first = Keep(engine, first_goes_on), second = Keep(engine, second_goes_on);
  ServeSome(engine);
  EXPECT_EQ(WaitFor(fence), FenceState::kPassed);
  first_goes_on.store(true);
  Finish(*first);
  EXPECT_EQ(WaitFor(fence), FenceState::kPassed);
  second_goes_on.store(true);
  Finish(*second);
  ServeSome(engine);
  EXPECT_EQ(WaitFor(fence), FenceState::kPassed) << "those that stood in are back";
}

TEST(EventFenceTest, IsLateWhileAllThreadsAreKept) {
  std::atomic<bool> goes_on{false};
  BusyEngine engine({.polling_threads = 1});
  EventFence fence = engine.engine().MakeFence();
  std::vector<std::unique_ptr<ClientCall>> kept;
  for (std::size_t i = 0; i < server::Poller::kThreads; ++i) kept.push_back(Keep(engine, goes_on));
  // Not before the last has its thread.
  const absl::Time end = absl::Now() + kTooLong;
  FenceState state = FenceState::kPassed;
  while (state != FenceState::kLate && absl::Now() < end) state = WaitFor(fence);
  EXPECT_EQ(state, FenceState::kLate);
  goes_on.store(true);
  for (const auto& call : kept) Finish(*call);
  EXPECT_EQ(WaitFor(fence), FenceState::kPassed);
}

TEST(EventFenceTest, WaitsForCallsThatGrpcKeepsBack) {
  // More than the engine asks for at a time arrive while its thread is kept; they are handled one after the other.
  std::atomic<bool> goes_on{false};
  BusyEngine engine({.polling_threads = 1});
  EventFence fence = engine.engine().MakeFence();
  const auto keeping = Keep(engine, goes_on);
  std::vector<std::unique_ptr<ClientCall>> calls;
  for (int i = 0; i < 200; ++i)
    calls.push_back(std::make_unique<ClientCall>(engine.port(), CallStart{.method = kUnary}));
  const int before = engine.engine().calls_in_flight();
  EXPECT_EQ(WaitFor(fence), FenceState::kPassed);
  EXPECT_GE(engine.engine().calls_in_flight(), std::max(before, 200));
  goes_on.store(true);
  Finish(*keeping);
  for (const auto& call : calls) Finish(*call);
}

}  // namespace
}  // namespace attend::testing
