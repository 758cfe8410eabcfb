// What is reserved is given back, exactly once, whichever way a call ends; and never more is granted than there is.
#include "server/rpc/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
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
    auto upload = *budget.Reserve(20, nullptr, User::kUploads);
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

AccountRef MakeAccount(const std::string& name, bool exempt = false) {
  return std::make_shared<Account>(name, std::make_shared<Tenant>(name), exempt);
}

TEST(MemoryBudgetTest, OneCallerHasAllUntilAnotherIsRefusedThenNoMoreThanAQuarter) {
  MemoryBudget budget(100);
  const AccountRef a = MakeAccount("a");
  const AccountRef b = MakeAccount("b");
  const AccountRef proxy = MakeAccount("p", /*exempt=*/true);
  auto much = budget.Reserve(60, a);
  auto more = budget.Reserve(30, a);
  ASSERT_TRUE(much.ok() && more.ok()) << "alone";
  EXPECT_EQ(GetErrorDetails(budget.Reserve(20, b).status()).reason, "MEMORY_BUDGET");
  more->ShrinkTo(0);
  const absl::Status refused = budget.Reserve(1, a).status();
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("a quarter"));
  EXPECT_FALSE(much->Resize(61).ok());
  EXPECT_EQ(much->bytes(), 60);
  EXPECT_TRUE(much->Resize(59).ok()) << "less is always granted";
  const auto of_proxy = budget.Reserve(20, proxy);
  EXPECT_TRUE(of_proxy.ok());
  const auto of_b = budget.Reserve(20, b);
  EXPECT_TRUE(of_b.ok()) << "what a gave back is there for b";
  much->ShrinkTo(10);
  EXPECT_TRUE(budget.Reserve(15, a).ok()) << "up to a quarter";
  EXPECT_FALSE(budget.Reserve(16, a).ok());
  EXPECT_EQ(a->tenant->TakeUnqueued(), 3 * Tenant::kRefusalTime) << "each refusal is its tenant's time";
  EXPECT_EQ(b->tenant->TakeUnqueued(), Tenant::kRefusalTime);
  EXPECT_EQ(a->memory_bytes, 10);
  EXPECT_EQ(b->memory_bytes, 20);
}

TEST(MemoryBudgetTest, ATenantsQuotaBoundsAllItsCallers) {
  MemoryBudget budget(1000);
  const AccountRef a = MakeAccount("a");
  const auto other = std::make_shared<Account>("other", a->tenant, false);
  a->tenant->SetLimits({.max_memory_in_flight_bytes = 100});
  const auto held = budget.Reserve(60, a);
  const absl::Status refused = budget.Reserve(41, other).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  const ErrorDetails details = GetErrorDetails(refused);
  EXPECT_EQ(details.reason, "TENANT_QUOTA");
  EXPECT_THAT(details.metadata, Contains(Pair("quota", "max_memory_in_flight_bytes")));
  EXPECT_THAT(details.metadata, Contains(Key(kRetryDelayKey)));
  EXPECT_EQ(budget.in_use_bytes(), 60);
  EXPECT_EQ(a->tenant->memory_bytes(), 60);
  EXPECT_TRUE(budget.Reserve(40, other).ok());
  EXPECT_EQ(a->tenant->memory_bytes(), 60);
}

TEST(MemoryBudgetTest, WhatNoWaitHelpsHasNoRetryDelay) {
  MemoryBudget budget(1000);
  const AccountRef a = MakeAccount("a");
  a->tenant->SetLimits({.max_memory_in_flight_bytes = 100});
  const auto retries = [&](double bytes) {
    const absl::Status refused = budget.Reserve(bytes, a).status();
    EXPECT_EQ(GetErrorDetails(refused).reason, "TENANT_QUOTA") << refused;
    const auto metadata = GetErrorDetails(refused).metadata;
    return std::any_of(metadata.begin(), metadata.end(),
                       [](const auto& entry) { return entry.first == kRetryDelayKey; });
  };
  EXPECT_FALSE(retries(101));
  EXPECT_EQ(a->tenant->refusals(), 1);
  auto held = budget.Reserve(1, a);
  EXPECT_TRUE(retries(100));
  EXPECT_FALSE(retries(101));
  EXPECT_TRUE(absl::IsResourceExhausted(held->Resize(101)));
  EXPECT_EQ(a->tenant->refusals(), 4);
  EXPECT_EQ(a->tenant->memory_bytes(), 1);
}

}  // namespace
}  // namespace attend::server
