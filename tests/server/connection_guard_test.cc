// When the guard asks who takes memory or a thread, whom it ends, and whom never. The world around it is a fake, and so
// is the time.
#include "server/rpc/connection_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

using server::Clock;
using server::ConnectionGuard;
using server::ConnectionTraffic;
using server::EndedConnection;
using server::EndReason;
using server::FenceState;
using server::HandedCalls;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr std::int64_t kMib = 1 << 20;
constexpr ConnectionGuard::Limits kLimits{.growth_bytes = 32 * kMib,
                                          .most_uncounted_bytes = 256 * kMib,
                                          .max_request_bytes = 64 * kMib,
                                          .max_metadata_bytes = 16 << 10};

class GuardTest : public ::testing::Test {
 protected:
  GuardTest() {
    Connect("a");
    Connect("b");
    Look();  // The program's memory.
  }

  void Connect(const std::string& peer, bool is_of_many = false) {
    connections_[peer] = {.number = next_number_++, .peer = peer, .is_of_many = is_of_many};
  }
  Clock::duration Look(Clock::duration later = milliseconds(10)) {
    now_ += later;
    return guard_.Look(now_);
  }
  void LookFor(Clock::duration time) {
    for (const Clock::time_point end = now_ + time; now_ < end;) Look();
  }
  void Grow(std::int64_t bytes) { memory_ += bytes; }
  // Opens an inquiry about memory.
  void Ask() {
    Grow(32 * kMib);
    Look();
    ASSERT_TRUE(calls_.counting());
  }

  std::int64_t memory_ = 30 * kMib;  // That nothing counts.
  std::int64_t counted_ = 0;
  std::map<std::string, ConnectionTraffic> connections_;
  std::int64_t next_number_ = 0;
  int times_looked_at_connections_ = 0;
  int times_looked_at_threads_ = 0;
  bool descriptors_are_short_ = false;
  bool ended_ones_stay_ = false;  // While gRPC has them open.
  FenceState fence_ = FenceState::kPassed;
  std::vector<std::uint64_t> questions_ = {0};
  bool asks_ = true;  // Whether the polling thread does.
  bool is_any_kept_ = false;
  int given_back_ = 0;
  std::int64_t gives_back_ = 0;          // When memory is given back.
  std::vector<std::string> open_calls_;  // Those that wait for a message, by peer.
  std::vector<std::string> ended_;
  std::vector<EndedConnection> told_;
  HandedCalls calls_;
  Clock::time_point now_{};
  ConnectionGuard guard_{
      kLimits,
      {.memory = [this]() -> server::ProcessUse { return {.anonymous = memory_ + counted_, .counted = counted_}; },
       .traffic =
           [this] {
             ++times_looked_at_connections_;
             std::vector<ConnectionTraffic> traffic;
             if (descriptors_are_short_) return traffic;
             for (const auto& [peer, one] : connections_) traffic.push_back(one);
             return traffic;
           },
       .next_number = [this] { return next_number_; },
       .shut_down =
           [this](std::int64_t number) {
             for (auto at = connections_.begin(); at != connections_.end(); ++at) {
               if (at->second.number != number) continue;
               ended_.push_back(at->first);
               if (!ended_ones_stay_) connections_.erase(at);
               return true;
             }
             return false;
           },
       .give_back_memory =
           [this] {
             ++given_back_;
             memory_ -= gives_back_;
           },
       .questions =
           [this] {
             if (asks_) ++questions_[0];
             return questions_;
           },
       .is_any_kept = [this] { return is_any_kept_; },
       .look_at_threads = [this] { ++times_looked_at_threads_; },
       .add_open_calls =
           [this] {
             for (const std::string& peer : open_calls_) calls_.AddCall(peer, /*is_receiving=*/true);
           },
       .begin_fence = [] {},
       .fence_state = [this] { return fence_; },
       .on_ended = [this](const EndedConnection& ended) { told_.push_back(ended); }},
      calls_};
};

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

TEST_F(GuardTest, WithHalfOfThePlanTakenOneLookIsEnough) {
  Ask();
  Grow(66 * kMib);
  connections_["a"].read = 64 << 10;
  Look();
  EXPECT_THAT(ended_, IsEmpty());
  Look();
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardTest, WhileThreadsAreKeptNobodyEndsBeforeHalfOfThePlan) {
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

TEST_F(GuardTest, WhileThreadsAreKeptTheWorstEnd) {
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

TEST_F(GuardTest, WhileAnUploadKeepsThreadsCallsOfOthersMayWait) {
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

TEST_F(GuardTest, BeyondThePlanCallsThatWaitExplainNothing) {
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

TEST_F(GuardTest, BeyondThePlanConnectionsWithoutACallEndLast) {
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

TEST_F(GuardTest, WhatWasCountedAMomentAgoIsNotBeyondThePlan) {
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

TEST_F(GuardTest, BeyondThePlanManySlowOnesEndToo) {
  open_calls_ = {"a", "b"};
  Ask();
  connections_["a"].read = 4 << 10;
  connections_["b"].read = 100;
  Grow(256 * kMib);
  LookFor(milliseconds(600));
  EXPECT_THAT(ended_, ElementsAre("a"));
}

TEST_F(GuardTest, WhoIsSacrificedAtEachLookSavesNobody) {
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

TEST_F(GuardTest, EachInquiryAsksMemoryBackBeforeItEndsBeyondThePlan) {
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

TEST_F(GuardTest, WhoKeepsAThreadEnds) {
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

TEST_F(GuardTest, WhoKeepsAThreadWhileMemoryGrowsEndsAfterTwoSecondsAsWell) {
  Ask();
  asks_ = false;
  fence_ = FenceState::kLate;
  connections_["b"].read = 100 * kMib;
  LookFor(milliseconds(1900));
  EXPECT_THAT(ended_, IsEmpty());
  LookFor(milliseconds(200));
  EXPECT_THAT(ended_, ElementsAre("b"));
}

TEST_F(GuardTest, WhoKeepsAThreadDoesNotHideWhoTakesMemory) {
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

TEST_F(GuardTest, AThreadThatDoesNotAskIsNotKept) {
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

TEST_F(GuardTest, AThreadThatNobodyKeepsIsAskedAboutSeldom) {
  asks_ = false;
  LookFor(seconds(13));
  EXPECT_FALSE(calls_.counting());
  LookFor(seconds(28));
  EXPECT_FALSE(calls_.counting());
  LookFor(seconds(2));
  EXPECT_TRUE(calls_.counting());
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
