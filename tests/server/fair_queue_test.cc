// Which task is next. Nothing here depends on a clock: times are given.
#include "server/rpc/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/server/fair_queue_case.h"

namespace attend::server {
namespace {

TEST(FairQueueTest, OneTenantIsFirstInFirstOut) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  for (const char* item : {"1", "2", "3", "4"}) queue.Push(a, 5, item);
  EXPECT_EQ(queue.waiting_ms(), 20);
  EXPECT_EQ(Serve(queue, 9, {{'1', 9}, {'2', 1}, {'3', 7}, {'4', 1}}), "1234");
  EXPECT_EQ(queue.waiting_ms(), 0);
  EXPECT_FALSE(queue.Pop().has_value());
}

TEST(FairQueueTest, TenantsHaveTheSameTimeWhateverTheirTasksTake) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1000);
  Push(queue, b, 1000);
  std::map<char, double> used;
  const std::map<char, double> takes = {{'a', 100}, {'b', 1}};
  for (int i = 0; i < 900; ++i) {
    const std::string item = Serve(queue, 1, takes);
    used[item[0]] += takes.at(item[0]);
  }
  // Never apart by more than the longest task.
  EXPECT_NEAR(used['a'], used['b'], 101);
}

TEST(FairQueueTest, WeightsAreRatiosOfTime) {
  Queue queue;
  const AccountRef a = MakeAccount("a", 3);
  const AccountRef b = MakeAccount("b", 0.5);
  Push(queue, a, 1000);
  Push(queue, b, 1000);
  const std::string order = Serve(queue, 700, {{'a', 2}, {'b', 2}});
  EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 600, 3) << order;
}

TEST(FairQueueTest, WhatATaskIsExpectedToTakeBuysNothing) {
  Queue queue;
  const AccountRef liar = MakeAccount("a");
  const AccountRef honest = MakeAccount("b");
  Push(queue, liar, 100, 1e-6);
  Push(queue, honest, 100, 10);
  const std::string order = Serve(queue, 100, {{'a', 10}, {'b', 10}});
  EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 50, 1) << order;
}

TEST(FairQueueTest, ANewWeightCountsForWhatWasUsedToo) {
  for (const std::string when : {"running", "waiting", "away"}) {
    Queue queue;
    const AccountRef a = MakeAccount("a", 0.001);
    const AccountRef b = MakeAccount("b");
    const auto raise = [&](const std::string& now) {
      if (when == now) a->tenant->SetLimits({.weight = 1});
    };
    Push(queue, a, 1);
    Push(queue, b, 100);
    auto taken = queue.Pop();
    queue.Expect(taken->charge, 30'000);
    raise("running");
    if (when != "away") Push(queue, a, 100);
    queue.Finish(taken->charge, 30'000, /*counts=*/false);
    raise("waiting");
    raise("away");
    if (when == "away") Push(queue, a, 100);
    const std::string order = Serve(queue, 60, {{'a', 1000}, {'b', 1000}});
    EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 15, 1)
        << when << ": 30 s behind, then in turns: " << order;
  }
}

TEST(FairQueueTest, WhatOneWeightChargedAnotherGivesNotBack) {
  Queue queue;
  const AccountRef a = MakeAccount("a", 1000);
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 100);
  Push(queue, b, 100);
  auto taken = queue.Pop();
  queue.Expect(taken->charge, 30'000);
  a->tenant->SetLimits({.weight = 0.001});
  queue.Finish(taken->charge, 0, /*counts=*/false);
  const std::string order = Serve(queue, 50, {{'a', 1}, {'b', 1}});
  EXPECT_LE(std::count(order.begin(), order.end(), 'a'), 1) << order;
}

TEST(FairQueueTest, ANewWeightCountsForWhatIsAhead) {
  Queue queue;
  const AccountRef a = MakeAccount("a", 0.001);
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  Push(queue, b, 100, 1000);
  Serve(queue, 1, {{'a', 30'000}});
  a->tenant->SetLimits({.weight = 1});
  EXPECT_NEAR(queue.AheadMs(a), 31'000, 1) << "30 s behind, and the task that b begins before they are over";
  Serve(queue, 40, {{'b', 1000}});
  EXPECT_EQ(queue.AheadMs(a), 0) << "b has had more, though a pushed nothing meanwhile";
}

TEST(FairQueueTest, RunningTasksCountBeforeTheyEnd) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 10);
  Push(queue, b, 10);
  std::vector<Queue::Taken> running;
  std::string order;
  for (int i = 0; i < 6; ++i) {
    running.push_back(*queue.Pop());
    order += running.back().item;
  }
  EXPECT_EQ(order, "ababab");
  queue.Expect(running[0].charge, 50);  // Decoded: it is a long one.
  order.clear();
  for (int i = 0; i < 4; ++i) order += queue.Pop()->item;
  EXPECT_EQ(order, "bbbb");
}

TEST(FairQueueTest, TimeWithoutTheQueueCounts) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  a->tenant->Computed(std::chrono::milliseconds(100), /*waited=*/false, {});
  Push(queue, b, 3);
  Push(queue, a, 3);
  EXPECT_EQ(Serve(queue, 4, {{'a', 10}, {'b', 10}}), "bbba");
}

TEST(FairQueueTest, AnHourWithoutTheQueueIsNoHourOfWaiting) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  a->tenant->Computed(std::chrono::hours(1), /*waited=*/false, {});
  Push(queue, b, 200);
  Push(queue, a, 1);
  EXPECT_EQ(Serve(queue, 102, {{'a', 10}, {'b', 10}}), std::string(101, 'b') + "a") << "a second at most";
}

TEST(FairQueueTest, APutBackTaskIsItsTenantsNextAndNotChargedTwice) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  queue.Push(a, 1, "first");
  queue.Push(a, 1, "second");
  auto taken = queue.Pop();
  queue.PutBack(taken->charge, a, 40, std::move(taken->item));
  queue.Finish(taken->charge, 0, /*counts=*/false);
  EXPECT_EQ(queue.waiting_ms(), 41);
  EXPECT_EQ(queue.Pop()->item, "first");
  EXPECT_EQ(queue.Pop()->item, "second");
}

TEST(FairQueueTest, WhatMayNotBeTakenKeepsItsTurn) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 2, 100);
  Push(queue, b, 1, 1);
  const auto is_short = [](const Queue::Next& next) { return next.expected_ms < 10; };
  EXPECT_EQ(queue.Pop(is_short)->item, "b");
  EXPECT_FALSE(queue.Pop(is_short).has_value());
  EXPECT_EQ(Serve(queue, 2, {{'a', 1}}), "aa");
}

TEST(FairQueueTest, WhatIsAheadIsOnesOwnAndTheOthersPartMeanwhile) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  EXPECT_EQ(queue.AheadMs(a), 0);
  Push(queue, a, 100, 10);
  Push(queue, b, 1, 10);
  Serve(queue, 2, {{'a', 100}, {'b', 100}});  // Nothing is saved up.
  EXPECT_EQ(queue.AheadMs(a), 990);
  Push(queue, a, 1, 10);
  EXPECT_EQ(queue.AheadMs(b), 10) << "one task of the other";
  Push(queue, b, 3, 10);
  EXPECT_EQ(queue.AheadMs(b), 30 + 40);
  EXPECT_EQ(queue.AheadMs(a), 1000 + 30);
  EXPECT_EQ(queue.AheadMs(nullptr), 0) << "who was never there is 50 ms before them";
}

TEST(FairQueueTest, WhatMayNotBeTakenIsAheadOfItsOwnAlone) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  const auto is_short = [](const Queue::Next& next) { return next.expected_ms < 10; };
  Push(queue, MakeAccount("c"), 1);
  const auto running = queue.Pop();
  queue.Wait(1000);
  Push(queue, a, 2, 1000);
  EXPECT_EQ(queue.AheadMs(b), 1000) << "both begin where they may: a's first";
  EXPECT_EQ(queue.AheadMs(b, is_short), 0);
  Push(queue, b, 3, 5);
  EXPECT_EQ(queue.AheadMs(b, is_short), 15);
  EXPECT_EQ(queue.AheadMs(a, is_short), HUGE_VAL);
  Push(queue, b, 1, 100);
  EXPECT_EQ(queue.AheadMs(b, is_short), HUGE_VAL) << "also when it is not the first";
}

TEST(FairQueueTest, TheCallerWithTheMostLosesItsNewestTask) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  const auto c = std::make_shared<Account>("c", a->tenant, false);  // Another caller of a's tenant.
  for (const char* item : {"a1", "a2", "a3"}) queue.Push(a, 1, item);
  queue.Push(c, 1, "c1");
  for (const char* item : {"b1", "b2"}) queue.Push(b, 1, item);
  EXPECT_EQ(queue.CountOf(a.get()), 3);
  EXPECT_EQ(queue.TakeFromLargest(2), "a3");
  EXPECT_FALSE(queue.HasLargerThan(2));
  EXPECT_EQ(queue.TakeFromLargest(2), std::nullopt);
  EXPECT_EQ(queue.size(), 5);
  const AccountRef proxy = MakeAccount("p", 1, /*exempt=*/true);
  Push(queue, proxy, 9);
  EXPECT_EQ(queue.TakeFromLargest(2), std::nullopt) << "many callers' tasks are nobody's";
}

// Against the definition, by brute force: at each step, of the tenants that have had tasks all the time, no two are
// apart by more than one task of each, in time by weight.
TEST(FairQueueTest, NoTenantFallsBehindByMoreThanATask) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    Queue queue;
    std::vector<AccountRef> accounts;
    std::map<char, double> used;
    double longest = 0;
    for (int i = 0; i < 5; ++i) {
      accounts.push_back(
          MakeAccount(std::string(1, static_cast<char>('a' + i)), 0.25 * static_cast<double>(1 + random() % 8)));
      Push(queue, accounts.back(), 400);
    }
    for (int step = 0; step < 300; ++step) {
      auto taken = queue.Pop();
      const char who = taken->item[0];
      const double ms = 1 + static_cast<double>(random() % 50);
      const double weight = accounts[static_cast<std::size_t>(who - 'a')]->tenant->weight();
      longest = std::max(longest, ms / weight);
      used[who] += ms / weight;
      queue.Finish(taken->charge, ms, true);
      for (const AccountRef& one : accounts) {
        for (const AccountRef& other : accounts) {
          ASSERT_LE(used[one->name[0]] - used[other->name[0]], longest + 1e-9) << round << " " << step;
        }
      }
    }
  }
}

}  // namespace
}  // namespace attend::server
