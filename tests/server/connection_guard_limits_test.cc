// Whom the guard ends where it cannot see all or must be quick: threads are kept, or memory is beyond half of the plan,
// or all of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>

#include "tests/server/connection_guard_fixture.h"

namespace attend::testing {
namespace {

using server::Clock;
using server::EndReason;
using server::FenceState;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

class GuardLimitsTest : public GuardFixture {};

TEST_F(GuardLimitsTest, WithHalfOfThePlanTakenOneLookIsEnough) {
  Ask();
  Grow(66 * kMib);
  connections_["a"].read = 64 << 10;
  Look();
  EXPECT_THAT(ended_, IsEmpty());
  Look();
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardLimitsTest, WhileThreadsAreKeptNobodyEndsBeforeHalfOfThePlan) {
  Ask();
  fence_ = FenceState::kLate;
  connections_["a"].read = 48 * kMib;  // A message whose call nobody has seen, or an attack.
  Grow(128 * kMib - 62 * kMib - 1);
  LookFor(seconds(2));
  EXPECT_THAT(ended_, IsEmpty());
  Grow(1);
  Look();
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardLimitsTest, WhileThreadsAreKeptTheWorstEnd) {
  Connect("c");
  Ask();
  Grow(66 * kMib);  // Half of the plan.
  fence_ = FenceState::kLate;
  connections_["a"].read = (128 << 10) - 1;
  LookFor(milliseconds(50));
  EXPECT_THAT(ended_, IsEmpty());
  connections_["a"].read = 500 << 10;
  connections_["b"].read = 1 << 20;
  connections_["c"].read = 600 << 10;
  Look();
  Look();
  EXPECT_THAT(ended_, UnorderedElementsAre("b", "c"));
}

TEST_F(GuardLimitsTest, WhileAnUploadKeepsThreadsCallsOfOthersMayWait) {
  open_calls_ = {"b"};
  Ask();
  Grow(66 * kMib);
  fence_ = FenceState::kLate;
  connections_["a"].read = 900 << 10;  // Calls that wait.
  for (int i = 1; i <= 5; ++i) {
    connections_["b"].read = i * 10 * kMib + 5 * kMib;
    Look();
  }
  EXPECT_THAT(ended_, IsEmpty());
  connections_["a"].read = kMib;
  LookFor(milliseconds(80));
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardLimitsTest, BeyondThePlanCallsThatWaitExplainNothing) {
  Connect("proxy", /*is_of_many=*/true);
  open_calls_ = {"a", "b", "proxy"};
  Ask();
  connections_["a"].read = connections_["proxy"].read = kMib;
  connections_["b"].read = 1;
  Grow(256 * kMib - 62 * kMib);
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, IsEmpty());
  EXPECT_EQ(given_back_, 0);
  Grow(1);
  Look();
  EXPECT_EQ(given_back_, 1) << "first what the allocator kept";
  EXPECT_THAT(ended_, IsEmpty());
  Look();
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardLimitsTest, BeyondThePlanConnectionsWithoutACallEndLast) {
  Connect("busy");
  Connect("proxy", /*is_of_many=*/true);
  open_calls_ = {"busy"};
  // Headers that did not end, sent long ago.
  for (auto& [peer, connection] : connections_) connection.read = 8 << 10;
  connections_["b"].read = 100;
  Ask();
  Grow(256 * kMib);
  LookFor(milliseconds(490));
  EXPECT_THAT(ended_, IsEmpty());
  LookFor(milliseconds(50));
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardLimitsTest, WhatWasCountedAMomentAgoIsNotBeyondThePlan) {
  Connect("uploading");
  open_calls_ = {"uploading"};
  counted_ = 1000 * kMib;
  LookFor(seconds(3));
  memory_ += std::exchange(counted_, 0);  // A layer is deleted, and its memory is not free yet.
  Look();
  EXPECT_TRUE(calls_.counting());
  connections_["uploading"].read = kMib;
  connections_["a"].read = 8 << 10;
  LookFor(milliseconds(1900));
  memory_ = 30 * kMib;
  LookFor(seconds(10));
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(GuardLimitsTest, BeyondThePlanManySlowOnesEndToo) {
  open_calls_ = {"a", "b"};
  Ask();
  connections_["a"].read = 4 << 10;
  connections_["b"].read = 100;
  Grow(256 * kMib);
  LookFor(milliseconds(600));
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardLimitsTest, WhoIsSacrificedAtEachLookSavesNobody) {
  ended_ones_stay_ = true;
  open_calls_ = {"a"};
  Connect("idle");
  connections_["idle"].read = 8 << 10;
  Ask();
  connections_["a"].read = kMib;
  Grow(256 * kMib);
  const Clock::time_point end = now_ + milliseconds(2300);
  for (int i = 0; now_ < end; ++i) {
    const std::string peer = "sacrificed" + std::to_string(i);
    Connect(peer);
    connections_[peer].read = kMib;
    Look();
    if (now_ < end - milliseconds(1850)) {
      ASSERT_THAT(ended_, Not(Contains("a")));
    }
    if (now_ < end - milliseconds(350)) {
      ASSERT_THAT(ended_, Not(Contains("idle")));
    }
  }
  EXPECT_THAT(ended_, AllOf(Contains("a").Times(1), Contains("idle").Times(1)));
  EXPECT_GE(given_back_, 5);
}

TEST_F(GuardLimitsTest, EachInquiryAsksMemoryBackBeforeItEndsBeyondThePlan) {
  open_calls_ = {"a"};
  gives_back_ = 300 * kMib;
  for (int inquiry = 1; inquiry <= 2; ++inquiry) {
    Ask();
    connections_["a"].read += kMib;
    Grow(268 * kMib);
    LookFor(milliseconds(100));
    EXPECT_EQ(given_back_, inquiry);
    EXPECT_FALSE(calls_.counting());
  }
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(GuardLimitsTest, WhoKeepsAThreadEnds) {
  asks_ = false;
  LookFor(milliseconds(1900));
  EXPECT_FALSE(calls_.counting());
  LookFor(milliseconds(200));
  EXPECT_TRUE(calls_.counting());
  fence_ = FenceState::kLate;
  connections_["b"].read = 100 * kMib;
  LookFor(milliseconds(50));
  EXPECT_THAT(ended_, ElementsAre("b"));
  EXPECT_EQ(guard_.ended(EndReason::kThread), 1);
  EXPECT_EQ(guard_.ended(EndReason::kMemory), 0);
  asks_ = true;
  LookFor(seconds(1));
  EXPECT_FALSE(calls_.counting());
}

TEST_F(GuardLimitsTest, WhoKeepsAThreadWhileMemoryGrowsEndsAfterTwoSecondsAsWell) {
  Ask();
  asks_ = false;
  fence_ = FenceState::kLate;
  connections_["b"].read = 100 * kMib;
  LookFor(milliseconds(1900));
  EXPECT_THAT(ended_, IsEmpty());
  LookFor(milliseconds(200));
  EXPECT_THAT(ended_, ElementsAre("b"));
}

TEST_F(GuardLimitsTest, WhoKeepsAThreadDoesNotHideWhoTakesMemory) {
  asks_ = false;
  open_calls_ = {"a", "b"};
  LookFor(milliseconds(2100));
  ASSERT_TRUE(calls_.counting());
  connections_["b"].read = kMib;  // Less than its call explains.
  Grow(256 * kMib);
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, ElementsAre("b"));
  EXPECT_EQ(guard_.ended(EndReason::kMemory), 1);
}

TEST_F(GuardLimitsTest, AThreadThatDoesNotAskIsNotKept) {
  asks_ = false;
  questions_ = {0, 7};
  LookFor(milliseconds(1900));
  questions_ = {0, 0};
  LookFor(seconds(10));
  questions_ = {0, 7};
  LookFor(milliseconds(1900));
  EXPECT_FALSE(calls_.counting());
  LookFor(milliseconds(200));
  EXPECT_TRUE(calls_.counting()) << "any of them counts";
}

TEST_F(GuardLimitsTest, AThreadThatNobodyKeepsIsAskedAboutSeldom) {
  asks_ = false;
  LookFor(seconds(13));
  EXPECT_FALSE(calls_.counting());
  LookFor(seconds(28));
  EXPECT_FALSE(calls_.counting());
  LookFor(seconds(2));
  EXPECT_TRUE(calls_.counting());
}

}  // namespace
}  // namespace attend::testing
