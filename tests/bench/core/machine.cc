#include "tests/bench/core/machine.h"

#include <time.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/core/machine.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
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

void ReadAll(const float* data, std::int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (std::int64_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Add(a, hn::LoadU(d, data + i));
    b = hn::Add(b, hn::LoadU(d, data + i + lanes));
    c = hn::Add(c, hn::LoadU(d, data + i + 2 * lanes));
    e = hn::Add(e, hn::LoadU(d, data + i + 3 * lanes));
  }
  volatile float sink = hn::GetLane(hn::Add(hn::Add(a, b), hn::Add(c, e)));
  (void)sink;
}

Loops GetLoops() { return {FusedMultiplyAdds, ReadAll}; }

}  // namespace HWY_NAMESPACE
}  // namespace attend::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend::bench {
namespace {

Loops LoopsFor(InstructionSet set) { ATTEND_RETURN_FOR(set, GetLoops) }

// Seconds that this thread was on a core.
double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

double MeasurePeakFlops(InstructionSet set) {
  const Loops loops = LoopsFor(set);
  const double start = ThreadSeconds();
  const double flops = loops.fused_multiply_adds(1'000'000);
  return flops / (ThreadSeconds() - start);
}

double MeasureReadBandwidth(InstructionSet set, const float* data, std::int64_t count) {
  const Loops loops = LoopsFor(set);
  const double start = ThreadSeconds();
  loops.read_all(data, count);
  return static_cast<double>(count) * sizeof(float) / (ThreadSeconds() - start);
}

}  // namespace attend::bench
#endif
