// Which task is next. Nothing here depends on a clock: times are given.
#include "server/rpc/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace attend::server {
namespace {

using ::testing::ElementsAre;

// With the time as this test has it.
class Queue : public FairQueue<std::string> {
 public:
  using Base = FairQueue<std::string>;

  void Push(const AccountRef& account, double expected_ms, const std::string& item) {
    Base::Push(account, expected_ms, item, now_);
  }
  std::optional<Taken> Pop() { return Base::Pop(now_); }
  std::optional<Taken> Pop(absl::FunctionRef<bool(const Next&)> may) { return Base::Pop(now_, may); }
  void Pause(Charge& charge) { Base::Pause(charge, now_); }
  void Resume(Charge& charge) { Base::Resume(charge, now_); }
  double UsedMs(const Charge& charge) const { return Base::UsedMs(charge, now_); }
  double UntilTurnMs(const AccountRef& account, const Charge& charge) const {
    return Base::UntilTurnMs(account, charge, now_);
  }
  void Finish(Charge& charge, double ms, bool counts) {
    Base::Finish(charge, ms, counts ? std::optional(ms) : std::nullopt, now_);
  }
  double AheadMs(const AccountRef& account) { return Base::AheadMs(account, now_); }
  void Wait(double ms) { now_ += ms; }

 private:
  double now_ = 1e6;  // Since the machine started.
};

AccountRef MakeAccount(const std::string& name, double weight = 1, bool exempt = false) {
  const auto tenant = std::make_shared<Tenant>(name);
  tenant->SetLimits({.weight = weight});
  return std::make_shared<Account>(name, tenant, exempt);
}

// Takes and ends `count` tasks, each of which takes what `ms` says of its name's first letter.
std::string Serve(Queue& queue, int count, const std::map<char, double>& ms) {
  std::string order;
  for (int i = 0; i < count; ++i) {
    auto taken = queue.Pop();
    if (!taken.has_value()) break;
    order += taken->item;
    queue.Wait(ms.at(taken->item[0]));
    queue.Finish(taken->charge, ms.at(taken->item[0]), /*counts=*/true);
  }
  return order;
}

void Push(Queue& queue, const AccountRef& account, int count, double expected_ms = 1) {
  for (int i = 0; i < count; ++i) queue.Push(account, expected_ms, account->name);
}

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

TEST(FairQueueTest, WhoPausedSavesUpAMomentAndWhoOwesStillOwes) {
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

// What is predicted is charged to its own tenant alone, and given back.
TEST(FairQueueTest, ALongTaskThatIsCancelledPutsItsTenantBeforeNobody) {
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

TEST(FairQueueTest, WhoHasSomethingRunningSavesNothingUp) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 2);
  Push(queue, b, 1000);
  std::vector<Queue::Taken> running;
  for (int i = 0; i < 2; ++i) running.push_back(*queue.Pop([](const auto& next) { return next.item == "a"; }));
  for (int i = 0; i < 100; ++i) {  // Six threads for b.
    std::vector<Queue::Taken> others;
    for (int thread = 0; thread < 6; ++thread) others.push_back(*queue.Pop());
    queue.Wait(100);
    for (Queue::Taken& other : others) queue.Finish(other.charge, 100, /*counts=*/true);
  }
  Push(queue, a, 100);
  for (Queue::Taken& each : running) queue.Finish(each.charge, 10'000, /*counts=*/false);
  const std::string order = Serve(queue, 20, {{'a', 100}, {'b', 100}});
  EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 10, 1) << order << ": level, though b has had 40 s more";
}

TEST(FairQueueTest, NorByAPredictionThatIsWithdrawn) {
  Queue queue;
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  Push(queue, a, 1);
  auto long_one = queue.Pop();
  queue.Expect(long_one->charge, 600'000);
  Push(queue, b, 1000);
  for (int i = 0; i < 60; ++i) {  // Seven threads for b, for a minute.
    std::vector<Queue::Taken> others;
    for (int thread = 0; thread < 7; ++thread) others.push_back(*queue.Pop());
    queue.Wait(1000);
    for (Queue::Taken& other : others) queue.Finish(other.charge, 1000, /*counts=*/true);
  }
  Push(queue, a, 100);
  queue.Finish(long_one->charge, 60'000, /*counts=*/false);
  const std::string order = Serve(queue, 20, {{'a', 1000}, {'b', 1000}});
  EXPECT_NEAR(std::count(order.begin(), order.end(), 'a'), 10, 1) << order << ": not 360 s of its own first";
}

// A task counts by the clock while it runs, and by processor time in the end: on half a core by half of it. Others that
// began by the former are not behind then.
TEST(FairQueueTest, WhatATaskDidNotUseMovesNobodyBack) {
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

TEST(FairQueueTest, TenantsHaveTheSameProcessorTimeWhateverElseTheirTasksTake) {
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

TEST(FairQueueTest, ANewWeightMovesNobodyBesideALongTask) {
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

TEST(FairQueueTest, ATenantThatIsBehindMayNotInterruptAsYet) {
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

TEST(FairQueueTest, WhatATaskTookWhileNobodyWaitedIsNotOwed) {
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

TEST(FairQueueTest, NobodyIsBeforeThoseWhoCameBefore) {
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

TEST(FairQueueTest, NobodyOwesAnythingOnceTheQueueWasEmpty) {
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
