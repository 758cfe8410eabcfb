// One projection of 512 tokens: against the machine's peak and against oneDNN.
//
// Both are given x [512, 768] and the same weights [768, 768] as they come with a request, rows of input features, and
// one thread. vs_onednn is our rate divided by that of the fastest way in which oneDNN can be called so, each call from
// the weights as given: ours packs them panel by panel, oneDNN copies or reorders them or reads them as they are.
// vs_onednn_packed is oneDNN's best case: its weights were reordered before the clock starts, while ours are as ever.
#include <algorithm>
#include <cmath>

#include "core/attention/projection.h"
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/machine.h"
#include "tests/bench/core/onednn_projection.h"

namespace attend::bench {
namespace {

constexpr std::int64_t kTokens = 512, kDim = 768;
constexpr double kFlops = 2.0 * kTokens * kDim * kDim;

class ProjectionCase {
 public:
  Figure PeakFraction() {
    return {MedianQuotient(OurRate(), [] { return MeasurePeakFlops(BestInstructionSet()); })};
  }

  Figure VsOnednn(bool packed_before) {
    const OnednnWay way = FastestWay(packed_before);
    if (!way.run) return {.skipped = "built without oneDNN (Debian: libdnnl-dev)"};
    Project({}, &projection_, 1, pool_);
    way.run();
    if (!SameResults()) return {.skipped = "results differ from those of " + way.name};
    return {MedianQuotient(OurRate(), RateOf(ThreadClock, way.run, kFlops)), way.name};
  }

 private:
  Measurement OurRate() {
    return RateOf(
        ThreadClock, [this] { Project({}, &projection_, 1, pool_); }, kFlops);
  }

  OnednnWay FastestWay(bool packed_before) {
    OnednnWay fastest;
    double most = 0;
    Projection<float> theirs = projection_;
    theirs.y = their_y_.data();
    for (const OnednnWay& way : OnednnWays(theirs)) {
      if (way.packed_before != packed_before) continue;
      const double rate = Median(RateOf(ThreadClock, way.run, kFlops));
      if (rate <= most) continue;
      most = rate;
      fastest = way;
    }
    return fastest;
  }

  // Sums of 768 products of numbers below 1, in float32 but in different orders.
  bool SameResults() const {
    return std::equal(y_.data(), y_.data() + y_.size(), their_y_.data(),
                      [](float a, float b) { return std::abs(a - b) < 1e-3f; });
  }

  AlignedBuffer<float> x_ = Numbers(kTokens * kDim), weight_ = Numbers(kDim * kDim);
  AlignedBuffer<float> y_{kTokens * kDim}, their_y_{kTokens * kDim};
  Projection<float> projection_{x_.data(), kTokens, {weight_.data(), nullptr, kDim, kDim}, y_.data()};
  WorkspacePool pool_;
};

}  // namespace

void RegisterProjectionCases() {
  Register("core/projection/T512/D768/peak_fraction", [] { return ProjectionCase().PeakFraction(); });
  Register("core/projection/T512/D768/vs_onednn", [] { return ProjectionCase().VsOnednn(false); });
  Register("core/projection/T512/D768/vs_onednn_packed", [] { return ProjectionCase().VsOnednn(true); });
}

}  // namespace attend::bench
