// The admin door before, while and after there is a server to show, and the counters behind /metrics.
#include "server/admin_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/kernels/instruction_set.h"
#include "server/metrics/exposition.h"
#include "server/metrics/server_metrics.h"
#include "server/metrics/sharded_counters.h"
#include "server/metrics/work_metrics.h"
#include "tests/support/http_get.h"

namespace attend::server {
namespace {

using attend::testing::HttpGet;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(AdminDoor, LivesAndIsNotReadyUntilThereIsAServer) {
  auto door = AdminDoor::Open("127.0.0.1:0", LoadingMetrics);
  ASSERT_TRUE(door.ok()) << door.status();
  const int port = (*door)->port();
  EXPECT_THAT(HttpGet(port, "/livez"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(HttpGet(port, "/readyz"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(HttpGet(port, "/readyz"), HasSubstr("loading\n"));
  // It can be scraped, so that nobody takes it for one that is down.
  EXPECT_THAT(HttpGet(port, "/metrics"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(HttpGet(port, "/metrics"), HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(
      HttpGet(port, "/metrics"),
      HasSubstr("\r\n\r\n# HELP attend_ready 1 while new calls are wanted, 0 while the server loads or drains.\n"
                "# TYPE attend_ready gauge\nattend_ready 0\n"));
  EXPECT_THAT(HttpGet(port, "/metrics"), HasSubstr("\nprocess_start_time_seconds ")) << "starts that come to nothing";

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

// What the page says of a counter of attention that was computed.
double Computed(const WorkMetrics& metrics, const std::string& name, const std::string& kind) {
  Exposition page;
  metrics.Write(page);
  const std::string text = page.Text();
  const std::string start = absl::StrCat(name, "{kind=\"", kind, "\",instruction_set=\"",
                                         std::string(InstructionSetName(InstructionSet::kBaseline)), "\"} ");
  const std::size_t at = text.find(start);
  EXPECT_NE(at, std::string::npos) << start << "\n" << text;
  return at == std::string::npos ? -1 : std::stod(text.substr(at + start.size()));
}

TEST(WorkMetrics, FlopsOfYearsAreCountedAndThoseOfSmallRequestsToo) {
  WorkMetrics metrics(InstructionSet::kBaseline);
  constexpr int kRequests = 160;
  for (int i = 0; i < kRequests; ++i) {  // A year at 5 TFLOP/s, in requests as large as one may be.
    metrics.OnComputed({.kind = WorkKind::kAttend, .flops = 1e18, .completed = true});
    metrics.OnComputed({.kind = WorkKind::kScaledDotProductAttention, .flops = 1007, .completed = true});
  }
  constexpr char kName[] = "attend_compute_flops_total";
  EXPECT_EQ(Computed(metrics, kName, "attend"), kRequests * 1e18);
  EXPECT_EQ(Computed(metrics, kName, "scaled_dot_product_attention"), kRequests * 1007.0);
  EXPECT_EQ(Computed(metrics, "attend_computed_requests_total", "attend"), kRequests);
}

}  // namespace
}  // namespace attend::server
