#include "tests/bench/core/machine.h"

#include <algorithm>

#include "tests/bench/core/harness.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/core/machine.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attend::bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 12 chains cover the latency of any machine in sight and fit any register file. They start from different numbers, or
// the compiler would compute equal ones once.
double FusedMultiplyAdds(std::int64_t rounds) {
  constexpr int kChains = 12;
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.999f);
  const auto summand = hn::Set(d, 0.001f);
  hn::Vec<decltype(d)> chains[kChains];
  HWY_UNROLL(12)
  for (int i = 0; i < kChains; ++i) chains[i] = hn::Set(d, 0.1f * static_cast<float>(i));
  for (std::int64_t r = 0; r < rounds; ++r) {
    HWY_UNROLL(12)
    for (int i = 0; i < kChains; ++i) chains[i] = hn::MulAdd(chains[i], factor, summand);
  }
  auto sum = chains[0];
  for (int i = 1; i < kChains; ++i) sum = hn::Add(sum, chains[i]);
  volatile float sink = hn::GetLane(sum);
  (void)sink;
  return static_cast<double>(rounds) * kChains * 2 * static_cast<double>(hn::Lanes(d));
}

// Reads kStreams parts of the data side by side, prefetching kAhead floats before they are read (0: not at all).
template <int kStreams, int kAhead>
void ReadAll(const float* data, std::int64_t count) {
  const hn::ScalableTag<float> d;
  constexpr int kVectors = 4;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t part = count / kStreams;
  hn::Vec<decltype(d)> sums[kVectors] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  for (std::int64_t i = 0; i < part; i += kVectors * lanes) {
    HWY_UNROLL(4)
    for (int s = 0; s < kStreams; ++s) {
      const float* from = data + s * part + i;
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) {
        if (kAhead > 0) hwy::Prefetch(from + v * lanes + kAhead);
        sums[v] = hn::Add(sums[v], hn::LoadU(d, from + v * lanes));
      }
    }
  }
  const auto sum = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  volatile float sink = hn::GetLane(hn::SumOfLanes(d, sum));
  (void)sink;
}

Loops GetLoops() {
  return {FusedMultiplyAdds,
          {{{"read plainly", ReadAll<1, 0>},
            {"read at 2 places", ReadAll<2, 0>},
            {"read at 4 places", ReadAll<4, 0>},
            {"read plainly, prefetching 1 KiB ahead", ReadAll<1, 256>},
            {"read plainly, prefetching 4 KiB ahead", ReadAll<1, 1024>},
            {"read at 2 places, prefetching 1 KiB ahead", ReadAll<2, 256>}}}};
}

}  // namespace HWY_NAMESPACE
}  // namespace attend::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend::bench {
namespace {

Loops LoopsFor(InstructionSet set) { ATTEND_RETURN_FOR(set, GetLoops) }

}  // namespace

double MeasurePeakFlops(InstructionSet set) {
  const Loops loops = LoopsFor(set);
  const double start = ThreadClock();
  const double flops = loops.fused_multiply_adds(1'000'000);
  return flops / (ThreadClock() - start);
}

ReadLoop FastestReadLoop(InstructionSet set, const float* data, std::int64_t count) {
  const Loops loops = LoopsFor(set);
  std::array<double, std::tuple_size_v<decltype(loops.read)>> least;
  least.fill(1e9);
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < least.size(); ++i) {
      least[i] = std::min(least[i], Seconds(ThreadClock, [&] { loops.read[i].read(data, count); }));
    }
  }
  return loops.read[static_cast<std::size_t>(std::min_element(least.begin(), least.end()) - least.begin())];
}

}  // namespace attend::bench
#endif
