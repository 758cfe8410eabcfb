// The admin door before, while and after there is a server to show, and the counters behind /metrics.
#include "server/admin_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "server/metrics/sharded_counters.h"
#include "tests/support/http_get.h"

namespace attend::server {
namespace {

using attend::testing::HttpGet;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(AdminDoor, LivesAndIsNotReadyUntilThereIsAServer) {
  auto door = AdminDoor::Open("127.0.0.1:0");
  ASSERT_TRUE(door.ok()) << door.status();
  const int port = (*door)->port();
  EXPECT_THAT(HttpGet(port, "/livez"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(HttpGet(port, "/readyz"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(HttpGet(port, "/readyz"), HasSubstr("loading\n"));
  EXPECT_THAT(HttpGet(port, "/metrics"), StartsWith("HTTP/1.1 503 "));

  std::atomic<bool> ready{true};
  (*door)->Show(
      {.ready = [&ready] { return ready.load(); }, .metrics = [] { return std::string("# EOF\n"); }, .on_tick = [] {}});
  EXPECT_THAT(HttpGet(port, "/readyz"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(HttpGet(port, "/metrics"), HasSubstr("\r\n\r\n# EOF\n"));
  ready = false;
  EXPECT_THAT(HttpGet(port, "/readyz"), HasSubstr("draining\n"));
  EXPECT_THAT(HttpGet(port, "/livez"), StartsWith("HTTP/1.1 200 "));
}

TEST(ShardedCounters, NoAdditionIsLostOrCountedElsewhere) {
  constexpr int kThreads = 8, kAdditions = 20'000;
  ShardedCounters counters(11);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&counters, t] {
      for (int i = 0; i < kAdditions; ++i)
        counters.Here().Add(static_cast<std::size_t>(t), static_cast<std::uint64_t>(t));
      counters.Here().Add(10);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t t = 0; t < kThreads; ++t) EXPECT_EQ(counters.Sum(t), t * kAdditions);
  EXPECT_EQ(counters.Sum(8), 0U);
  EXPECT_EQ(counters.Sum(9), 0U);
  EXPECT_EQ(counters.Sum(10), static_cast<std::uint64_t>(kThreads));
}

}  // namespace
}  // namespace attend::server
