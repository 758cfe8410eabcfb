// Where a tenant begins: who saves up, who owes, and what moves nobody else. Nothing here depends on a clock.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/server/fair_queue_case.h"

namespace attend::server {
namespace {

// Runs as many tasks at a time as there are threads, each of which takes `ms`.
void ServeOn(Queue& queue, int threads, int rounds, double ms) {
  for (int round = 0; round < rounds; ++round) {
    std::vector<Queue::Taken> running;
    for (int thread = 0; thread < threads; ++thread) running.push_back(*queue.Pop());
    queue.Wait(ms);
    for (Queue::Taken& each : running) queue.Finish(each.charge, ms, /*counts=*/true);
  }
}

TEST(FairQueueLevelTest, WhoPausedSavesUpAMomentAndWhoOwesStillOwes) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, b, 1);
  EXPECT_EQ(Serve(queue, 1, {{'b', 1}}), "b");
  Push(queue, a, 100);
  EXPECT_EQ(Serve(queue, 50, {{'a', 10}}), std::string(50, 'a'));  // b is away for 500 ms,
  Push(queue, b, 100);
  const std::string order = Serve(queue, 20, {{'a', 10}, {'b', 10}});
  EXPECT_EQ(order, "bbbbbabababababababa") << "and has 50 of them";
  Queue other;
  Push(other, a, 1);
  Push(other, b, 50);
  EXPECT_EQ(Serve(other, 1, {{'a', 95}}), "a");
  Push(other, a, 1);
  EXPECT_EQ(Serve(other, 11, {{'a', 100}, {'b', 10}}), "bbbbbbbbbba") << "a goes on when b has had as much";
}

// What is predicted is charged to its own tenant alone, and given back.
TEST(FairQueueLevelTest, ALongTaskThatIsCancelledPutsItsTenantBeforeNobody) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  auto cancelled = queue.Pop();
  queue.Expect(cancelled->charge, 5e6);
  Push(queue, a, 100);
  EXPECT_EQ(Serve(queue, 1, {{'a', 10}}), "a") << "on another thread";
  queue.Finish(cancelled->charge, 10, /*counts=*/false);
  Push(queue, b, 1);
  EXPECT_LE(Serve(queue, 3, {{'a', 10}, {'b', 10}}).find('b'), 1);
}

TEST(FairQueueLevelTest, WhoHasSomethingRunningSavesNothingUp) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 2);
  Push(queue, b, 1000);
  std::vector<Queue::Taken> running;
  for (int i = 0; i < 2; ++i) running.push_back(*queue.Pop([](const auto& next) { return next.item == "a"; }));
  ServeOn(queue, /*threads=*/6, /*rounds=*/100, /*ms=*/100);  // b's.
  Push(queue, a, 100);
  for (Queue::Taken& each : running) queue.Finish(each.charge, 10'000, /*counts=*/false);
  const std::string order = Serve(queue, 20, {{'a', 100}, {'b', 100}});
  EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 10, 1) << order << ": level, though b has had 40 s more";
}

TEST(FairQueueLevelTest, APredictionThatIsWithdrawnSavesNothingUp) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  auto long_one = queue.Pop();
  queue.Expect(long_one->charge, 600'000);
  Push(queue, b, 1000);
  ServeOn(queue, /*threads=*/7, /*rounds=*/60, /*ms=*/1000);  // b's.
  Push(queue, a, 100);
  queue.Finish(long_one->charge, 60'000, /*counts=*/false);
  const std::string order = Serve(queue, 20, {{'a', 1000}, {'b', 1000}});
  EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 10, 1) << order << ": not 360 s of its own first";
}

// A task counts by the clock while it runs, and by processor time in the end: on half a core by half of it. Others that
// began by the former are not behind then.
TEST(FairQueueLevelTest, WhatATaskDidNotUseMovesNobodyBack) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  double longest = 0;
  Push(queue, a, 10);
  for (int round = 0; round < 5; ++round) {
    auto long_one = *queue.Pop([](const Queue::Next& next) { return next.item == "a"; });
    queue.Expect(long_one.charge, 10'000);
    double waits = -1;  // Of b's next call: as long as the long one computes meanwhile.
    for (int ms = 0; ms < 10'000; ms += 5) {
      queue.Wait(5);
      if (ms % 20 == 0) Push(queue, b, 1);
      if (ms % 20 == 0) waits = std::max(waits, 0.0);
      while (auto short_one = queue.Pop([&](const Queue::Next& next) {
        return next.item == "b" && next.virtual_ms <= queue.UsedMs(long_one.charge);
      })) {
        queue.Pause(long_one.charge);
        queue.Wait(1);
        queue.Finish(short_one->charge, 1, /*counts=*/true);
        queue.Resume(long_one.charge);
        longest = std::max(longest, waits);
        waits = 0;
      }
      waits += 5;
    }
    queue.Finish(long_one.charge, 5'000, /*counts=*/true);
  }
  EXPECT_LE(longest, 60) << "ms, of 10 s";
}

TEST(FairQueueLevelTest, TenantsHaveTheSameProcessorTimeWhateverElseTheirTasksTake) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 100);
  Push(queue, b, 100);
  std::map<std::string, double> used;
  for (int i = 0; i < 100; ++i) {
    auto taken = *queue.Pop();
    const double used_ms = taken.item == "a" ? 10 : 30;
    queue.Wait(30);  // The polling threads have a's core for two thirds of the time.
    queue.Finish(taken.charge, used_ms, /*counts=*/false);
    used[taken.item] += used_ms;
  }
  EXPECT_NEAR(used["a"], used["b"], 31);
}

TEST(FairQueueLevelTest, ANewWeightMovesNobodyBesideALongTask) {
  for (const double weight : {0.001, 1000.0}) {
    Queue queue;
    const AccountRef a = MakeAccount("a");
    const AccountRef b = MakeAccount("b");
    Push(queue, a, 1);
    auto alone = queue.Pop();
    queue.Wait(600'000);
    Push(queue, b, 2);
    b->tenant->SetLimits({.weight = weight});
    EXPECT_EQ(queue.UntilTurnMs(b, alone->charge), 0) << weight;
    EXPECT_TRUE(queue.Pop([&](const Queue::Next& next) { return next.virtual_ms <= queue.UsedMs(alone->charge); }))
        << weight;
    a->tenant->SetLimits({.weight = weight});
    Push(queue, b, 1);
    EXPECT_NEAR(queue.UntilTurnMs(b, alone->charge), 0, 1 + 1e-6) << weight;
  }
}

TEST(FairQueueLevelTest, ATenantThatIsBehindMayNotInterruptAsYet) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  auto alone = queue.Pop();
  queue.Wait(100);
  EXPECT_EQ(queue.UntilTurnMs(b, alone->charge), 0);
  Push(queue, b, 1);
  queue.Pause(alone->charge);
  EXPECT_EQ(Serve(queue, 1, {{'b', 80}}), "b");
  queue.Resume(alone->charge);
  EXPECT_EQ(queue.UntilTurnMs(b, alone->charge), 30) << "80 ms, but for 50";
  queue.Wait(20);
  EXPECT_EQ(queue.UntilTurnMs(b, alone->charge), 10);
}

TEST(FairQueueLevelTest, ATenantOnSeveralThreadsIsCaughtUpWithSooner) {
  Queue queue;
  const AccountRef b = MakeAccount("b");
  Push(queue, MakeAccount("a"), 4);
  std::vector<Queue::Taken> running;
  for (int i = 0; i < 4; ++i) running.push_back(*queue.Pop());
  queue.Wait(100);
  Push(queue, b, 1);
  auto taken = queue.Pop();
  queue.Finish(taken->charge, 450, /*counts=*/false);
  EXPECT_EQ(queue.UntilTurnMs(b, running[0].charge), 100) << "400 ms, of four threads";
  queue.Pause(running[1].charge);
  queue.Pause(running[2].charge);
  EXPECT_EQ(queue.UntilTurnMs(b, running[0].charge), 100) << "two of them are interrupted, for a moment";
  queue.Resume(running[1].charge);
  queue.Resume(running[2].charge);
  queue.Wait(100);
  EXPECT_EQ(queue.UntilTurnMs(b, running[0].charge), 0);
}

TEST(FairQueueLevelTest, WhatATaskTookWhileNobodyWaitedIsNotOwed) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  auto alone = queue.Pop();
  queue.Expect(alone->charge, 1e6);
  queue.Wait(600'000);
  const auto may_interrupt = [&](const Queue::Next& next) { return next.virtual_ms <= queue.UsedMs(alone->charge); };
  Push(queue, b, 3);
  auto interrupts = queue.Pop(may_interrupt);
  ASSERT_TRUE(interrupts.has_value()) << "at once";
  queue.Pause(alone->charge);
  queue.Pause(alone->charge);  // On a thread that helps.
  queue.Wait(60);
  queue.Resume(alone->charge);
  queue.Finish(interrupts->charge, 60, /*counts=*/true);
  queue.Resume(alone->charge);
  EXPECT_FALSE(queue.Pop(may_interrupt).has_value()) << "50 ms were saved up, 10 ms are the other's now";
  queue.Wait(9);
  EXPECT_FALSE(queue.Pop(may_interrupt).has_value());
  queue.Wait(1);
  interrupts = queue.Pop(may_interrupt);
  ASSERT_TRUE(interrupts.has_value());
  queue.Finish(interrupts->charge, 10, /*counts=*/true);
  queue.Finish(alone->charge, 600'010, /*counts=*/false);
}

TEST(FairQueueLevelTest, NobodyIsBeforeThoseWhoCameBefore) {
  Queue queue;
  Push(queue, MakeAccount("a"), 1);
  auto alone = queue.Pop();
  queue.Wait(1000);
  for (const char* name : {"b", "c", "d"}) {
    Push(queue, MakeAccount(name), 1);
    queue.Wait(1);
  }
  EXPECT_EQ(Serve(queue, 3, {{'b', 1}, {'c', 1}, {'d', 1}}), "bcd");
  queue.Finish(alone->charge, 1006, /*counts=*/true);
}

TEST(FairQueueLevelTest, NobodyOwesAnythingOnceTheQueueWasEmpty) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  Serve(queue, 1, {{'a', 600'000}});
  Push(queue, b, 20);
  Push(queue, a, 20);
  const std::string order = Serve(queue, 15, {{'a', 10}, {'b', 10}});
  EXPECT_EQ(order.substr(0, 5), "bbbbb") << "of a tenant that was never there";
  EXPECT_EQ(std::count(order.begin(), order.end(), 'a'), 5) << order;
}

}  // namespace
}  // namespace attend::server
