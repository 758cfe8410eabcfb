// What is reserved is given back, exactly once, whichever way a call ends; and never more is granted than there is.
#include "server/rpc/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

TEST(MemoryBudgetTest, GrantsUpToTheLastByteAndNotOneMore) {
  MemoryBudget budget(100);
  const auto first = budget.Reserve(60);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsUnavailable(budget.Reserve(41).status()));
  EXPECT_EQ(budget.in_use_bytes(), 60) << "a refusal takes nothing";
  const auto second = budget.Reserve(40);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(budget.in_use_bytes(), 100);
  EXPECT_TRUE(budget.Reserve(0).ok()) << "what takes nothing is always granted";
}

TEST(MemoryBudgetTest, ARefusalThatPassesSaysWhenToComeBack) {
  MemoryBudget budget(100);
  const auto held = budget.Reserve(100);
  const absl::Status refused = budget.Reserve(1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--max-memory-in-flight-bytes"));
  const ErrorDetails details = GetErrorDetails(refused);
  EXPECT_EQ(details.reason, "MEMORY_BUDGET");
  EXPECT_THAT(details.metadata, Contains(Key(kRetryDelayKey)));
}

TEST(MemoryBudgetTest, WhatNeverFitsIsTooLargeAndNoReasonToComeBack) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.Reserve(100).ok());
  for (const double bytes : {101.0, 1e300}) {
    const absl::Status refused = budget.Reserve(bytes).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    const ErrorDetails details = GetErrorDetails(refused);
    EXPECT_EQ(details.reason, "LIMIT_EXCEEDED");
    EXPECT_THAT(details.metadata, Contains(Pair("flag", "--max-memory-in-flight-bytes")));
    EXPECT_THAT(details.metadata, Not(Contains(Key(kRetryDelayKey))));
  }
}

TEST(MemoryBudgetTest, IsGivenBackExactlyOnce) {
  MemoryBudget budget(100);
  MemoryBudget::Reservation kept;
  {
    auto reserved = budget.Reserve(70);
    MemoryBudget::Reservation moved = *std::move(reserved);
    kept = std::move(moved);
  }
  EXPECT_EQ(budget.in_use_bytes(), 70) << "moving gives nothing back";
  kept = *budget.Reserve(30);
  EXPECT_EQ(budget.in_use_bytes(), 30) << "assignment gives back what was held";
  kept.ShrinkTo(50);
  EXPECT_EQ(kept.bytes(), 30) << "shrinking never grows";
  kept.ShrinkTo(10);
  kept.ShrinkTo(10);
  EXPECT_EQ(budget.in_use_bytes(), 10);
  kept = MemoryBudget::Reservation();
  EXPECT_EQ(budget.in_use_bytes(), 0);
}

TEST(MemoryBudgetTest, ResizingCountsWhatIsHeldAlready) {
  MemoryBudget budget(100);
  auto mine = budget.Reserve(40);
  const auto others = budget.Reserve(30);
  EXPECT_TRUE(mine->Resize(70).ok()) << "30 of others and 70";
  EXPECT_EQ(budget.in_use_bytes(), 100);
  EXPECT_TRUE(absl::IsUnavailable(mine->Resize(71)));
  EXPECT_TRUE(absl::IsResourceExhausted(mine->Resize(101)));
  EXPECT_EQ(mine->bytes(), 70) << "a refusal changes nothing";
  EXPECT_TRUE(mine->Resize(5).ok());
  EXPECT_EQ(budget.in_use_bytes(), 35);
}

TEST(MemoryBudgetTest, SaysWhoHoldsWhat) {
  using User = MemoryBudget::User;
  MemoryBudget budget(100);
  auto request = *budget.Reserve(10);
  {
    auto upload = *budget.Reserve(20, User::kUploads);
    ASSERT_TRUE(upload.Resize(50).ok());
    EXPECT_FALSE(upload.Resize(91).ok());
    EXPECT_EQ(budget.in_use_bytes(User::kUploads), 50);
    EXPECT_EQ(budget.in_use_bytes(User::kRequests), 10);
    ASSERT_TRUE(upload.Resize(30).ok());
    auto moved = std::move(upload);
    moved.ShrinkTo(25);
    EXPECT_EQ(budget.in_use_bytes(User::kUploads), 25);
    EXPECT_EQ(budget.in_use_bytes(), 35);
  }
  EXPECT_EQ(budget.in_use_bytes(User::kUploads), 0);
  EXPECT_EQ(budget.in_use_bytes(User::kRequests), 10);
}

TEST(MemoryBudgetTest, TheWidestLimitHolds) {
  constexpr std::int64_t kMost = std::int64_t{1} << 62;
  MemoryBudget budget(kMost);
  const auto all = budget.Reserve(static_cast<double>(kMost));
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(budget.in_use_bytes(), kMost);
  EXPECT_FALSE(budget.Reserve(1).ok());
}

TEST(MemoryBudgetTest, ThreadsTogetherNeverHoldMoreThanThereIs) {
  MemoryBudget budget(10);
  std::atomic<std::int64_t> held{0};
  std::atomic<int> granted{0};
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20000; ++round) {
        const auto reserved = budget.Reserve(3);
        if (!reserved.ok()) continue;
        granted.fetch_add(1);
        if (held.fetch_add(3) + 3 > 10) exceeded = true;
        held.fetch_sub(3);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_GT(granted, 0) << "nothing was held that could have exceeded it";
  EXPECT_EQ(budget.in_use_bytes(), 0);
}

}  // namespace
}  // namespace attend::server
