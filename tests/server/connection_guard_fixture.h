// A ConnectionGuard in a world that is a fake, and so is the time.
#ifndef ATTEND_TESTS_SERVER_CONNECTION_GUARD_FIXTURE_H_
#define ATTEND_TESTS_SERVER_CONNECTION_GUARD_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "server/rpc/connection_guard.h"

namespace attend::testing {

inline constexpr std::int64_t kMib = 1 << 20;
inline constexpr server::ConnectionGuard::Limits kLimits{.growth_bytes = 32 * kMib,
                                                         .most_uncounted_bytes = 256 * kMib,
                                                         .max_request_bytes = 64 * kMib,
                                                         .max_metadata_bytes = 16 << 10};

class GuardFixture : public ::testing::Test {
 protected:
  GuardFixture() {
    Connect("a");
    Connect("b");
    Look();  // The program's memory.
  }

  void Connect(const std::string& peer, bool is_of_many = false) {
    connections_[peer] = {.number = next_number_++, .peer = peer, .is_of_many = is_of_many};
  }
  server::Clock::duration Look(server::Clock::duration later = std::chrono::milliseconds(10)) {
    now_ += later;
    return guard_.Look(now_);
  }
  void LookFor(server::Clock::duration time) {
    for (const server::Clock::time_point end = now_ + time; now_ < end;) Look();
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
  std::map<std::string, server::ConnectionTraffic> connections_;
  std::int64_t next_number_ = 0;
  int times_looked_at_connections_ = 0;
  int times_looked_at_threads_ = 0;
  bool descriptors_are_short_ = false;
  bool ended_ones_stay_ = false;  // While gRPC has them open.
  server::FenceState fence_ = server::FenceState::kPassed;
  std::vector<std::uint64_t> questions_ = {0};
  bool asks_ = true;  // Whether the polling thread does.
  bool is_any_kept_ = false;
  int given_back_ = 0;
  std::int64_t gives_back_ = 0;          // When memory is given back.
  std::int64_t free_ = 0;                // With the allocator.
  std::vector<std::string> open_calls_;  // Those that wait for a message, by peer.
  std::vector<std::string> ended_;
  std::vector<server::EndedConnection> told_;
  server::HandedCalls calls_;
  server::Clock::time_point now_{};
  server::ConnectionGuard guard_{
      kLimits,
      {.memory = [this]() -> server::ProcessUse { return {.anonymous = memory_ + counted_, .counted = counted_}; },
       .traffic =
           [this] {
             ++times_looked_at_connections_;
             std::vector<server::ConnectionTraffic> traffic;
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
       .free_bytes = [this] { return free_; },
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
       .on_ended = [this](const server::EndedConnection& ended) { told_.push_back(ended); }},
      calls_};
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SERVER_CONNECTION_GUARD_FIXTURE_H_
