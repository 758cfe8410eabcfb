// The admin door before, while and after there is a server to show, and the counters behind /metrics.
#include "server/admin_door.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "core/kernels/instruction_set.h"
#include "server/base/protocol.h"
#include "server/metrics/exposition.h"
#include "server/metrics/process_metrics.h"
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

// The number of a series of the page, which is there: `name` or `name{label="value"}`.
double Sample(const std::string& page, const std::string& series) {
  const std::string start = absl::StrCat("\n", series, " ");
  const std::size_t at = page.find(start);
  EXPECT_NE(at, std::string::npos) << series << "\n" << page;
  return at == std::string::npos ? -1 : std::stod(page.substr(at + start.size()));
}

// The bounds of a histogram without labels, and the count at each.
std::map<double, double> Buckets(const std::string& page, const std::string& name) {
  std::map<double, double> buckets;
  const std::string start = absl::StrCat("\n", name, "_bucket{le=\"");
  for (std::size_t at = page.find(start); at != std::string::npos; at = page.find(start, at + 1)) {
    const std::size_t bound = at + start.size();
    buckets[std::stod(page.substr(bound))] = std::stod(page.substr(page.find("\"} ", bound) + 3));
  }
  return buckets;
}

std::string PageOf(const WorkMetrics& metrics) {
  Exposition page;
  metrics.Write(page);
  return page.Text();
}

// What the page says of a counter of attention that was computed.
double Computed(const WorkMetrics& metrics, const std::string& name, const std::string& kind) {
  return Sample(PageOf(metrics), absl::StrCat(name, "{kind=\"", kind, "\",instruction_set=\"",
                                              std::string(InstructionSetName(InstructionSet::kBaseline)), "\"}"));
}

absl::Status Refused(const char* why) {
  return WithDetails(absl::UnavailableError("no"), {.reason = why, .field = "", .metadata = {}});
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

TEST(WorkMetrics, TimeIsInSecondsAndWhatWasStoppedIsApart) {
  using std::chrono::milliseconds;
  constexpr WorkKind kSdpa = WorkKind::kScaledDotProductAttention;
  WorkMetrics metrics(InstructionSet::kBaseline);
  metrics.OnComputed({.kind = WorkKind::kAttend, .flops = 8, .took = milliseconds(1500), .completed = true});
  metrics.OnComputed({.kind = kSdpa, .flops = 16, .took = milliseconds(250), .completed = true});
  for (int i = 0; i < 3; ++i) {
    metrics.OnComputed({.kind = kSdpa, .flops = 32, .took = milliseconds(125), .completed = false});
  }
  const std::tuple<const char*, double, double> expected[] = {
      {"attend_computed_requests_total", 1, 1},
      {"attend_compute_seconds_total", 1.5, 0.25},
      {"attend_compute_flops_total", 8, 16},
      {"attend_stopped_requests_total", 0, 3},
      {"attend_stopped_compute_seconds_total", 0, 0.375},
  };
  for (const auto& [name, attend, sdpa] : expected) {
    EXPECT_NEAR(Computed(metrics, name, "attend"), attend, 1e-9) << name;
    EXPECT_NEAR(Computed(metrics, name, "scaled_dot_product_attention"), sdpa, 1e-9) << name;
  }
}

TEST(WorkMetrics, EachReasonOfTheServersOwnIsCountedByItself) {
  constexpr const char* kReasons[] = {reason::kQueueFull,    reason::kDeadlineUnreachable, reason::kDeadlineTooShort,
                                      reason::kMemoryBudget, reason::kTooManyUploads,      reason::kUploadTooSlow,
                                      reason::kDraining,     reason::kLimitExceeded,       reason::kDataDirReadOnly,
                                      reason::kDiskFull,     reason::kStorageFailed,       reason::kTooManyCalls,
                                      reason::kNoMessage,    reason::kNoCredential,        reason::kBadCredential,
                                      reason::kMissingRole,  reason::kTenantQuota};
  WorkMetrics metrics(InstructionSet::kBaseline);
  int times = 0;
  for (const char* const why : kReasons) {
    ++times;
    for (int i = 0; i < times; ++i) metrics.OnError(Refused(why));
  }
  metrics.OnError(Refused(reason::kLayerNotFound));
  metrics.OnError(absl::InternalError("no"));
  const std::string page = PageOf(metrics);
  times = 0;
  for (const char* const why : kReasons) {
    EXPECT_EQ(Sample(page, absl::StrCat("attend_refusals_total{reason=\"", why, "\"}")), ++times) << why;
  }
  EXPECT_EQ(page.find(reason::kLayerNotFound), std::string::npos);
}

TEST(WorkMetrics, AnswersOfStreamsAreCountedByTheirCodes) {
  WorkMetrics metrics(InstructionSet::kBaseline);
  for (std::size_t code = 0; code < kGrpcCodes; ++code) {
    for (std::size_t i = 0; i <= code; ++i) {
      metrics.OnStreamAnswer(absl::Status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "no"));
    }
  }
  metrics.OnStreamAnswer(Refused(reason::kQueueFull));
  const std::string page = PageOf(metrics);
  for (std::size_t code = 0; code < kGrpcCodes; ++code) {
    const std::size_t refused = static_cast<absl::StatusCode>(code) == absl::StatusCode::kUnavailable ? 1 : 0;
    EXPECT_EQ(Sample(page, absl::StrCat("attend_stream_requests_total{grpc_code=\"", kGrpcCodeNames[code], "\"}")),
              static_cast<double>(code + 1 + refused))
        << kGrpcCodeNames[code];
  }
  EXPECT_EQ(Sample(page, "attend_refusals_total{reason=\"QUEUE_FULL\"}"), 1);
  EXPECT_EQ(Sample(page, "attend_loop_delay_seconds_count"), 0);
}

TEST(WorkMetrics, DelaysOfLoopsAreInTheBucketsOfTheirLengths) {
  WorkMetrics metrics(InstructionSet::kBaseline);
  using std::chrono::microseconds;
  for (const microseconds delay :
       {microseconds(-5), microseconds(10), microseconds(11), microseconds(45'000'000), microseconds(61'000'000)}) {
    metrics.OnLoopDelay(delay);
  }
  const std::string page = PageOf(metrics);
  std::map<double, double> expected;
  for (const double bound : {10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3,
                             50e-3, 0.1,   0.25,  0.5,    1.0,    2.5,    5.0,  10.0,   30.0, 60.0,  HUGE_VAL}) {
    expected[bound] = bound < 11e-6 ? 2 : bound < 45 ? 3 : bound < 61 ? 4 : 5;
  }
  EXPECT_EQ(Buckets(page, "attend_loop_delay_seconds"), expected);
  EXPECT_EQ(Sample(page, "attend_loop_delay_seconds_count"), 5);
  EXPECT_NEAR(Sample(page, "attend_loop_delay_seconds_sum"), 106.000021, 1e-9);
}

// User and system time.
std::pair<double, double> Used() {
  rusage usage{};
  EXPECT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return {seconds(usage.ru_utime), seconds(usage.ru_stime)};
}

std::ptrdiff_t NumThreads() {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  return std::distance(begin(threads), end(threads));
}

TEST(ProcessMetrics, AreWhatTheSystemSays) {
  // So much of both that neither is nothing.
  const auto latest = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while ((Used().first < 0.05 || Used().second < 0.05) && std::chrono::steady_clock::now() < latest) (void)getppid();
  std::string page;
  double threads = 0;
  do {  // A thread that was joined is counted for a moment yet.
    Exposition exposition;
    WriteProcessMetrics(exposition);
    page = exposition.Text();
    threads = static_cast<double>(NumThreads());
  } while (Sample(page, "process_threads") != threads && std::chrono::steady_clock::now() < latest);

  const auto [user, system] = Used();
  EXPECT_NEAR(Sample(page, "process_cpu_seconds_total"), user + system, 0.05);
  EXPECT_EQ(Sample(page, "process_threads"), threads);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_DOUBLE_EQ(Sample(page, "process_max_fds"), static_cast<double>(limit.rlim_cur));
  int open_files = 0;
  for (int fd = 0; fd < 65536; ++fd) open_files += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  EXPECT_EQ(Sample(page, "process_open_fds"), open_files);
  std::ifstream statm("/proc/self/statm");
  double virtual_pages = 0, resident_pages = 0;
  statm >> virtual_pages >> resident_pages;
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  EXPECT_NEAR(Sample(page, "process_virtual_memory_bytes"), virtual_pages * page_bytes, 64 << 20);
  EXPECT_NEAR(Sample(page, "process_resident_memory_bytes"), resident_pages * page_bytes, 16 << 20);
}

}  // namespace
}  // namespace attend::server
