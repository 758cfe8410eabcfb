// Counters that many threads add to at once, each on the cache lines of its own processor.
//
//   ShardedCounters counters(2);
//   ShardedCounters::Shard here = counters.Here();
//   here.Add(1, 40);                  // A few nanoseconds, whoever else adds.
//   counters.Sum(1);                  // 40
//
// Thread-safe and lock-free. A sum that is taken while others add has each of their additions wholly or not at all.
#ifndef ATTEND_SERVER_METRICS_SHARDED_COUNTERS_H_
#define ATTEND_SERVER_METRICS_SHARDED_COUNTERS_H_

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace attend::server {

class ShardedCounters {
  static constexpr std::size_t kPerLine = 8;
  struct alignas(64) Line {
    std::atomic<std::uint64_t> counters[kPerLine] = {};
  };

 public:
  // What one processor adds to; right on whichever the thread is by now, only slower if it has moved.
  class Shard {
   public:
    // REQUIRES: index < count.
    void Add(std::size_t index, std::uint64_t value = 1) const {
      lines_[index / kPerLine].counters[index % kPerLine].fetch_add(value, std::memory_order_relaxed);
    }

   private:
    friend class ShardedCounters;
    explicit Shard(Line* lines) : lines_(lines) {}
    Line* lines_;
  };

  // `count` counters, all 0.
  explicit ShardedCounters(std::size_t count) : lines_((count + kPerLine - 1) / kPerLine) {
    for (auto& shard : shards_) shard = std::make_unique<Line[]>(lines_);
  }

  Shard Here() {
    const auto processor = static_cast<std::size_t>(std::max(sched_getcpu(), 0));
    return Shard(shards_[processor % shards_.size()].get());
  }

  // Wraps after 2^64 - 1.
  std::uint64_t Sum(std::size_t index) const {
    std::uint64_t sum = 0;
    for (const auto& shard : shards_) {
      sum += shard[index / kPerLine].counters[index % kPerLine].load(std::memory_order_relaxed);
    }
    return sum;
  }

 private:
  static constexpr unsigned kMostShards = 64;

  const std::size_t lines_;
  std::vector<std::unique_ptr<Line[]>> shards_ =
      std::vector<std::unique_ptr<Line[]>>(std::clamp(std::thread::hardware_concurrency(), 1U, kMostShards));
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_SHARDED_COUNTERS_H_
