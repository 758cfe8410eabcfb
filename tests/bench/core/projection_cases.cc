// One projection of 512 tokens, or of 8: against the machine's peak and against oneDNN.
//
// Both are given x [512, 768] and the same weights [768, 768] as they come with a request, rows of input features, and
// one thread. vs_onednn is our rate divided by that of the fastest way in which oneDNN can be called so, each call from
// the weights as given: ours packs them panel by panel, oneDNN copies or reorders them or reads them as they are.
// vs_onednn_packed is oneDNN's best case: its weights were reordered before the clock starts, while ours are as ever.
// packed/vs_onednn is the case of a named layer: both sides' weights were packed before. packed/speedup is our own rate
// with packed weights divided by that without.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/layer/projection.h"
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/machine.h"
#include "tests/bench/core/onednn_projection.h"

namespace attend::bench {
namespace {

constexpr std::int64_t kTokens = 512, kFewTokens = 8, kDim = 768;

class ProjectionCase {
 public:
  explicit ProjectionCase(std::int64_t tokens) : tokens_(tokens) {}

  Figure PeakFraction() {
    return {MedianQuotient(OurRate(projection_), [] { return MeasurePeakFlops(BestInstructionSet()); })};
  }

  Figure VsOnednn(bool ours_packed, bool theirs_packed) {
    const OnednnWay way = FastestWay(theirs_packed);
    if (!way.run) return {.skipped = "built without oneDNN (Debian: libdnnl-dev)"};
    const Projection<float> ours = ours_packed ? Packed() : projection_;
    Project({}, &ours, 1, pool_);
    way.run();
    if (!SameResults()) return {.skipped = "results differ from those of " + way.name};
    return {MedianQuotient(OurRate(ours), RateOf(ThreadClock, way.run, Flops())), way.name};
  }

  Figure Speedup() { return {MedianQuotient(OurRate(Packed()), OurRate(projection_))}; }

 private:
  double Flops() const { return 2.0 * static_cast<double>(tokens_) * kDim * kDim; }

  Projection<float> Packed() const {
    Projection<float> projection = projection_;
    projection.linear.packed = &packed_;
    return projection;
  }

  Measurement OurRate(const Projection<float>& projection) {
    return RateOf(
        ThreadClock, [this, projection] { Project({}, &projection, 1, pool_); }, Flops());
  }

  OnednnWay FastestWay(bool packed_before) {
    OnednnWay fastest;
    double most = 0;
    Projection<float> theirs = projection_;
    theirs.y = their_y_.data();
    for (const OnednnWay& way : OnednnWays(theirs)) {
      if (way.packed_before != packed_before) continue;
      const double rate = Median(RateOf(ThreadClock, way.run, Flops()));
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

  std::int64_t tokens_;
  AlignedBuffer<float> x_ = Numbers(tokens_ * kDim), weight_ = Numbers(kDim * kDim);
  AlignedBuffer<float> y_{tokens_ * kDim}, their_y_{tokens_ * kDim};
  Projection<float> projection_{x_.data(), tokens_, {weight_.data(), nullptr, kDim, kDim}, y_.data()};
  PackedLinear packed_{projection_.linear, BestInstructionSet()};
  WorkspacePool pool_;
};

}  // namespace

void RegisterProjectionCases() {
  const std::string many = "core/projection/T512/D768/", few = "core/projection/T8/D768/";
  Register(many + "peak_fraction", [] { return ProjectionCase(kTokens).PeakFraction(); });
  Register(many + "vs_onednn", [] { return ProjectionCase(kTokens).VsOnednn(false, false); });
  Register(many + "vs_onednn_packed", [] { return ProjectionCase(kTokens).VsOnednn(false, true); });
  Register(many + "packed/vs_onednn", [] { return ProjectionCase(kTokens).VsOnednn(true, true); });
  Register(many + "packed/speedup", [] { return ProjectionCase(kTokens).Speedup(); });
  Register(few + "packed/vs_onednn", [] { return ProjectionCase(kFewTokens).VsOnednn(true, true); });
  Register(few + "packed/speedup", [] { return ProjectionCase(kFewTokens).Speedup(); });
}

}  // namespace attend::bench
