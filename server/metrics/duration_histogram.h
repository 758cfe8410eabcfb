// Durations counted in buckets, inside a ShardedCounters that holds more than that.
#ifndef ATTEND_SERVER_METRICS_DURATION_HISTOGRAM_H_
#define ATTEND_SERVER_METRICS_DURATION_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "server/metrics/exposition.h"
#include "server/metrics/sharded_counters.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// Its counters are those from `first` on, kCounters in number. Thread-safe as ShardedCounters is.
class DurationHistogram {
 public:
  // From a small call's 10 us to a minute.
  static constexpr std::array<double, 21> kUpperBounds = {10e-6,  25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3,
                                                          2.5e-3, 5e-3,  10e-3, 25e-3,  50e-3,  0.1,    0.25,
                                                          0.5,    1,     2.5,   5,      10,     30,     60};
  // One for each bound, one for what is above, and the sum in nanoseconds.
  static constexpr std::size_t kCounters = kUpperBounds.size() + 2;

  static void Observe(const ShardedCounters::Shard& here, std::size_t first, Clock::duration duration) {
    const auto nanoseconds = std::max<std::int64_t>(std::chrono::nanoseconds(duration).count(), 0);
    const double seconds = static_cast<double>(nanoseconds) * 1e-9;
    const auto bucket = std::lower_bound(kUpperBounds.begin(), kUpperBounds.end(), seconds) - kUpperBounds.begin();
    here.Add(first + static_cast<std::size_t>(bucket));
    here.Add(first + kCounters - 1, static_cast<std::uint64_t>(nanoseconds));
  }

  // Into the family that was started last.
  static void Write(const ShardedCounters& counters, std::size_t first, MetricLabels labels, Exposition& page) {
    std::array<std::uint64_t, kCounters - 1> counts{};
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = counters.Sum(first + i);
    page.Add(std::move(labels), kUpperBounds, counts, static_cast<double>(counters.Sum(first + kCounters - 1)) * 1e-9);
  }
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_DURATION_HISTOGRAM_H_
