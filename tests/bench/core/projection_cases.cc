// One projection of 512 tokens, against the machine's peak.
#include "core/attention/projection.h"
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/machine.h"

namespace attend::bench {
namespace {

constexpr std::int64_t kTokens = 512, kDim = 768;
constexpr double kFlops = 2.0 * kTokens * kDim * kDim;

double PeakFraction() {
  const AlignedBuffer<float> x = Numbers(kTokens * kDim), weight = Numbers(kDim * kDim), y(kTokens * kDim);
  const Projection projection{x.data(), kTokens, {weight.data(), nullptr, kDim, kDim}, y.data()};
  WorkspacePool pool;
  return MedianQuotient(RateOf(
                            ThreadClock, [&] { Project({}, &projection, 1, pool); }, kFlops),
                        [] { return MeasurePeakFlops(BestInstructionSet()); });
}

}  // namespace

void RegisterProjectionCases() {
  Register("core/projection/T512/D768/peak_fraction", [] { return Figure{PeakFraction()}; });
}

}  // namespace attend::bench
