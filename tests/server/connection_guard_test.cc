// When the guard asks who takes memory, whom it ends then, and whom never.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/server/connection_guard_fixture.h"

namespace attend::testing {
namespace {

using server::Clock;
using server::EndReason;
using server::FenceState;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class GuardTest : public GuardFixture {};

TEST_F(GuardTest, WhileMemoryIsCountedNobodyIsLookedAt) {
  connections_["a"].read = 1000 * kMib;
  Grow(31 * kMib);
  LookFor(seconds(20));
  EXPECT_EQ(times_looked_at_connections_, 0);
  EXPECT_EQ(times_looked_at_threads_, 0);
  EXPECT_FALSE(calls_.counting());
  EXPECT_THAT(ended_, IsEmpty());
  Grow(kMib);
  LookFor(milliseconds(50));
  EXPECT_EQ(times_looked_at_threads_, 5);
}

TEST_F(GuardTest, BytesThatBecomeNoCallsEndTheirConnection) {
  connections_["a"].read = connections_["b"].read = 500 * kMib;  // Of before.
  Ask();
  connections_["a"].read += 64 << 10;
  connections_["b"].read += (64 << 10) - 1;
  Look();  // What was read before the fence was nothing.
  LookFor(milliseconds(50));
  EXPECT_THAT(ended_, IsEmpty()) << "it is suspected";
  Look();
  EXPECT_THAT(ended_, ElementsAre("a"));
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_EQ(told_[0].peer, "a");
  EXPECT_EQ(told_[0].read_bytes, 64 << 10);
  EXPECT_EQ(told_[0].handed_bytes, 0);
  EXPECT_EQ(guard_.ended(EndReason::kMemory), 1);
  EXPECT_EQ(guard_.ended(EndReason::kThread), 0);
}

TEST_F(GuardTest, AConnectionThatCameLaterHadNothingBefore) {
  Ask();
  Connect("c");
  connections_["c"].read = 64 << 10;
  LookFor(milliseconds(80));
  EXPECT_THAT(ended_, ElementsAre("c"));
}

TEST_F(GuardTest, WhatCallsExplainEndsNobody) {
  for (const char* peer : {"messages", "small", "calls", "answer"}) Connect(peer);
  open_calls_ = {"a"};
  Ask();
  connections_["a"].read = 64 * kMib;  // A message that is on its way.
  calls_.AddCall("b", true);           // One that came whole, and the next is on its way.
  calls_.AddMessage("b", 40 * kMib, /*is_last=*/false);
  connections_["b"].read = 60 * kMib + 64 * kMib;
  calls_.AddCall("messages", true);
  calls_.AddMessage("messages", 100 * kMib, /*is_last=*/true);
  connections_["messages"].read = 150 * kMib;
  for (int i = 0; i < 1000; ++i) calls_.AddMessage("small", 1, false);
  connections_["small"].read = 250 * 1000;
  for (int i = 0; i < 100; ++i) calls_.AddCall("calls", false);
  connections_["calls"].read = 100 * (16 << 10);
  connections_["answer"].read = 100 * kMib;
  connections_["answer"].sent = 800 * kMib;
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, IsEmpty());
  for (auto& [peer, connection] : connections_) connection.read += 128 << 10;
  LookFor(milliseconds(80));
  EXPECT_THAT(ended_, UnorderedElementsAre("a", "b", "messages", "small", "calls", "answer"))
      << "nothing of this explains more than it was";
}

TEST_F(GuardTest, WhatWasReadIsComparedOnceTheEventsBehindItWereHandled) {
  Ask();
  fence_ = FenceState::kWaits;
  connections_["a"].read = kMib;
  LookFor(seconds(5));
  EXPECT_THAT(ended_, IsEmpty());
  calls_.AddCall("a", false);
  calls_.AddMessage("a", kMib, true);
  fence_ = FenceState::kPassed;
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(GuardTest, WhoseCallIsSeenAMomentLaterDoesNotEnd) {
  Ask();
  connections_["a"].read = 48 * kMib;
  Look();
  Look();  // The event was taken and not handled yet.
  calls_.AddCall("a", /*is_receiving=*/true);
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(GuardTest, WhatIsReadBetweenTwoLooksIsNotSuspectedTwice) {
  Ask();
  for (int i = 0; i < 50; ++i) {  // A message of 1 MiB after the other, each seen a look later than its bytes.
    connections_["a"].read += kMib;
    Look();
    calls_.AddCall("a", false);
    calls_.AddMessage("a", kMib, true);
  }
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(GuardTest, MemoryOfThoseWhoEndedIsAskedBack) {
  Ask();
  connections_["a"].read = kMib;
  gives_back_ = 32 * kMib;
  LookFor(milliseconds(70));
  ASSERT_THAT(ended_, ElementsAre("a"));
  LookFor(milliseconds(190));
  EXPECT_EQ(given_back_, 0);
  LookFor(milliseconds(50));
  EXPECT_EQ(given_back_, 1);
  EXPECT_FALSE(calls_.counting()) << "the inquiry is over";
}

TEST_F(GuardTest, WhatIsFreeIsGivenBackWithoutAnInquiryToo) {
  constexpr std::chrono::seconds kPause(2);
  free_ = 40 * kMib;
  Grow(31 * kMib);
  LookFor(2 * kPause);
  EXPECT_EQ(given_back_, 0) << "so little stays";
  Grow(1 * kMib);
  LookFor(std::chrono::seconds(11));  // The inquiry finds nobody.
  EXPECT_EQ(given_back_, 1);
  free_ = 71 * kMib;
  LookFor(2 * kPause);
  EXPECT_EQ(given_back_, 1) << "of it 40 MiB are no memory any more";
  free_ = 72 * kMib;
  LookFor(2 * kPause);
  EXPECT_EQ(given_back_, 2);
  free_ = 10 * kMib;  // Used again, and freed.
  LookFor(2 * kPause);
  free_ = 41 * kMib;
  LookFor(2 * kPause);
  EXPECT_EQ(given_back_, 2);
  free_ = 42 * kMib;
  Look(kPause);
  EXPECT_EQ(given_back_, 3);
  free_ = 200 * kMib;
  LookFor(kPause - std::chrono::milliseconds(20));
  EXPECT_EQ(given_back_, 3) << "at most each two seconds";
}

TEST_F(GuardTest, WhatTheNextFloodFreedIsGivenBackToo) {
  gives_back_ = 100 * kMib;
  for (int flood = 1; flood <= 4; ++flood) {
    // It takes what the last one left and frees it before anybody asks.
    free_ = 100 * kMib;
    Grow(100 * kMib);
    LookFor(std::chrono::seconds(15));
    EXPECT_EQ(given_back_, flood);
  }
}

TEST_F(GuardTest, MemoryThatNoConnectionExplainsIsTolerated) {
  Ask();
  LookFor(milliseconds(9900));
  EXPECT_TRUE(calls_.counting());
  LookFor(seconds(1));
  EXPECT_FALSE(calls_.counting());
  LookFor(seconds(5));
  EXPECT_FALSE(calls_.counting());
  Grow(-20 * kMib);
  Look();
  Grow(31 * kMib);
  Look();
  EXPECT_FALSE(calls_.counting());
  Grow(kMib);
  Look();
  EXPECT_TRUE(calls_.counting()) << "it is measured from the least since then";
}

TEST_F(GuardTest, WhoHasEndedIsCountedOnceWhileItIsOpenYet) {
  ended_ones_stay_ = true;
  Ask();
  connections_["a"].read = kMib;
  LookFor(seconds(9));
  EXPECT_THAT(ended_, ElementsAre("a"));
  EXPECT_EQ(guard_.ended(EndReason::kMemory), 1);
  EXPECT_EQ(given_back_, 1);
  LookFor(seconds(2));
  EXPECT_FALSE(calls_.counting()) << "it is over ten seconds after the end";
}

TEST_F(GuardTest, ACallThatHasJustEndedExplainsWhatIsOnItsWay) {
  calls_.NoteEnded("a", now_ - seconds(1));
  calls_.NoteEnded("b", now_ - seconds(3));
  Ask();
  connections_["a"].read = connections_["b"].read = kMib;
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, ElementsAre("b"));
}

TEST_F(GuardTest, WhoIsNotSeenAtFirstHasNotSentAllSince) {
  connections_["a"].read = 1000 * kMib;
  descriptors_are_short_ = true;
  Ask();
  descriptors_are_short_ = false;
  Connect("later");
  connections_["later"].read = kMib;
  LookFor(milliseconds(100));
  EXPECT_THAT(ended_, ElementsAre("later"));
  connections_["a"].read += 64 << 10;
  LookFor(milliseconds(80));
  EXPECT_THAT(ended_, ElementsAre("later", "a"));
}

TEST_F(GuardTest, WhoMakesCallsWithTooMuchMetadataEnds) {
  Connect("proxy", /*is_of_many=*/true);
  for (int i = 0; i < 7; ++i) {
    for (const char* peer : {"a", "b", "proxy"}) guard_.OnTooMuchMetadata(peer);
  }
  Look();
  EXPECT_THAT(ended_, IsEmpty());
  EXPECT_EQ(times_looked_at_connections_, 0);
  for (const char* peer : {"b", "proxy", "nobody"}) guard_.OnTooMuchMetadata(peer);
  Look();
  EXPECT_THAT(ended_, ElementsAre("b"));
  EXPECT_EQ(guard_.ended(EndReason::kMetadata), 1);
  EXPECT_EQ(guard_.ended(EndReason::kMemory), 0);
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_EQ(told_[0].reason, EndReason::kMetadata);
  LookFor(seconds(1));
  EXPECT_EQ(times_looked_at_connections_, 1);
}

TEST_F(GuardTest, LooksAreRareWhileNothingIsReceived) {
  Clock::duration pause{};
  for (int i = 0; i < 10; ++i) pause = Look();
  EXPECT_EQ(pause, seconds(2));
  guard_.OnTraffic();
  EXPECT_EQ(Look(), milliseconds(20));
  EXPECT_EQ(Look(), milliseconds(40));
  Grow(2 * kMib);
  EXPECT_EQ(Look(), milliseconds(20));
  Grow(5 * kMib);
  EXPECT_EQ(Look(), milliseconds(5));
  is_any_kept_ = true;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Look(), milliseconds(20));
}

}  // namespace
}  // namespace attend::testing
