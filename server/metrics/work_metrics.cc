#include "server/metrics/work_metrics.h"

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/metrics/call_metrics.h"
#include "server/metrics/duration_histogram.h"

namespace attend::server {
namespace {

// The reasons that say something of the server or its limits; others say something of the caller.
constexpr const char* kReasons[] = {reason::kQueueFull,    reason::kDeadlineUnreachable, reason::kDeadlineTooShort,
                                    reason::kMemoryBudget, reason::kTooManyUploads,      reason::kUploadTooSlow,
                                    reason::kDraining,     reason::kLimitExceeded,       reason::kDataDirReadOnly,
                                    reason::kDiskFull,     reason::kStorageFailed,       reason::kTooManyCalls,
                                    reason::kNoMessage,    reason::kNoCredential,        reason::kBadCredential,
                                    reason::kMissingRole,  reason::kTenantQuota};

constexpr const char* kKinds[] = {"attend", "scaled_dot_product_attention"};  // By WorkKind, without kControl.

constexpr std::size_t kStreamAnswers = std::size(kReasons);  // One for each code.
constexpr std::size_t kLoopDelay = kStreamAnswers + kGrpcCodes;
constexpr std::size_t kWork = kLoopDelay + DurationHistogram::kCounters;  // Those below, for each kind.
constexpr std::size_t kCompleted = 0;
// Thousands, and what is left of each request: one counter of all would be beyond 64 bits after 43 days at 5 TFLOP/s.
constexpr std::size_t kThousandFlops = 1;
constexpr std::size_t kFlops = 2;
constexpr std::size_t kNanoseconds = 3;
constexpr std::size_t kStopped = 4;
constexpr std::size_t kStoppedNanoseconds = 5;
constexpr std::size_t kPerKind = 6;
constexpr std::size_t kCounters = kWork + std::size(kKinds) * kPerKind;

}  // namespace

WorkMetrics::WorkMetrics(InstructionSet instruction_set)
    : instruction_set_(InstructionSetName(instruction_set)), counters_(kCounters) {}

void WorkMetrics::OnError(const absl::Status& status) {
  const std::string reason = GetErrorDetails(status).reason;
  for (std::size_t i = 0; i < std::size(kReasons); ++i) {
    if (reason == kReasons[i]) return counters_.Here().Add(i);
  }
}

void WorkMetrics::OnStreamAnswer(const absl::Status& status) {
  counters_.Here().Add(kStreamAnswers + static_cast<std::size_t>(status.code()));
  if (!status.ok()) OnError(status);
}

void WorkMetrics::OnComputed(const ComputedRequest& request) {
  const std::size_t at = kWork + (static_cast<std::size_t>(request.kind) - 1) * kPerKind;
  const auto nanoseconds = static_cast<std::uint64_t>(std::chrono::nanoseconds(request.took).count());
  const ShardedCounters::Shard here = counters_.Here();
  if (!request.completed) {
    here.Add(at + kStopped);
    here.Add(at + kStoppedNanoseconds, nanoseconds);
    return;
  }
  here.Add(at + kCompleted);
  const auto flops = static_cast<std::uint64_t>(request.flops);
  here.Add(at + kThousandFlops, flops / 1000);
  here.Add(at + kFlops, flops % 1000);
  here.Add(at + kNanoseconds, nanoseconds);
}

void WorkMetrics::OnLoopDelay(Clock::duration delay) {
  DurationHistogram::Observe(counters_.Here(), kLoopDelay, delay);
}

void WorkMetrics::WriteWork(std::initializer_list<Term> sum, const std::string& name, const std::string& help,
                            Exposition& page) const {
  page.Counter(name, help);
  for (std::size_t i = 0; i < std::size(kKinds); ++i) {
    double value = 0;
    for (const Term& term : sum) {
      value += static_cast<double>(counters_.Sum(kWork + i * kPerKind + term.offset)) * term.unit;
    }
    page.Add({{"kind", kKinds[i]}, {"instruction_set", instruction_set_}}, value);
  }
}

void WorkMetrics::Write(Exposition& page) const {
  page.Counter("attend_refusals_total", "Calls and requests of streams that this server's state or limits refused.");
  for (std::size_t i = 0; i < std::size(kReasons); ++i) {
    page.Add({{"reason", kReasons[i]}}, static_cast<double>(counters_.Sum(i)));
  }
  page.Counter("attend_stream_requests_total", "Requests of StreamAttend that were answered.");
  for (std::size_t code = 0; code < kGrpcCodes; ++code) {
    page.Add({{"grpc_code", kGrpcCodeNames[code]}}, static_cast<double>(counters_.Sum(kStreamAnswers + code)));
  }
  WriteWork({{kCompleted, 1}}, "attend_computed_requests_total", "Requests that were computed to their end.", page);
  WriteWork({{kNanoseconds, 1e-9}}, "attend_compute_seconds_total", "Time in which they were computed.", page);
  WriteWork({{kThousandFlops, 1000}, {kFlops, 1}}, "attend_compute_flops_total",
            "Their floating-point operations, an upper bound.", page);
  WriteWork({{kStopped, 1}}, "attend_stopped_requests_total",
            "Requests whose computing was stopped, by their caller or their deadline.", page);
  WriteWork({{kStoppedNanoseconds, 1e-9}}, "attend_stopped_compute_seconds_total", "Time that went into them.", page);
  page.Histogram("attend_loop_delay_seconds",
                 "How long an event waits for its polling thread, asked ten times a second.");
  DurationHistogram::Write(counters_, kLoopDelay, {}, page);
}

}  // namespace attend::server
