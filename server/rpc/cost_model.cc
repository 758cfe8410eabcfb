#include "server/rpc/cost_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/numbers.h"
#include "core/compute/compute_sdpa.h"
#include "core/tensor/aligned_buffer.h"

namespace attend::server {
namespace {

// After so much observed computing, what was known before counts half.
constexpr double kHalfLifeMs = 1000;
// A sample that says more than this is of a machine that slept or a cost that was far off; it counts as this.
constexpr double kLargestCorrection = 64;

constexpr int kRuns = 3;
constexpr std::int64_t kHeads = 2, kTokens = 256, kHeadDim = 64;
constexpr std::int64_t kCopyBytes = std::int64_t{4} << 20;

template <typename Function>
double BestMilliseconds(const Function& function) {
  double best = HUGE_VAL;
  for (int i = 0; i < kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    function();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  return std::max(best, 1e-3);
}

double MeasureFlopsPerMs(InstructionSet instruction_set) {
  constexpr std::int64_t kElements = kHeads * kTokens * kHeadDim;
  const AlignedBuffer<float> input(kElements);
  const AlignedBuffer<float> output(kElements);
  std::fill_n(input.data(), kElements, 0.5F);
  const TypedHeadsView view =
      SplitTypedHeads(static_cast<const void*>(input.data()), DataType::kFloat32, 1, kHeads, kTokens, kHeadDim);
  const auto problem = SdpaProblem::Create({.query = view, .key = view, .value = view, .options = {}});
  if (!problem.ok()) return ComputeRates().flops_per_ms;  // Cannot be: the shapes are right.
  SdpaOutputs outputs;
  outputs.output = SplitTypedHeads(static_cast<void*>(output.data()), DataType::kFloat32, 1, kHeads, kTokens, kHeadDim);
  const ComputeContext context{.instruction_set = instruction_set};
  return problem->Flops() / BestMilliseconds([&] { ComputeSdpa(*problem, outputs, context).IgnoreError(); });
}

// Memory that a request takes is fresh, and the first touch of a page costs as much as writing it.
double MeasureBytesPerMs() {
  const AlignedBuffer<char> from(kCopyBytes);
  std::memset(from.data(), 1, kCopyBytes);
  return static_cast<double>(kCopyBytes) / BestMilliseconds([&] {
           const AlignedBuffer<char> to(kCopyBytes);
           std::memcpy(to.data(), from.data(), kCopyBytes);
         });
}

}  // namespace

ComputeRates MeasureRates(InstructionSet instruction_set) {
  return {.flops_per_ms = MeasureFlopsPerMs(instruction_set), .bytes_per_ms = MeasureBytesPerMs()};
}

double CostModel::LeastMilliseconds(const WorkCost& cost) const {
  return Uncorrected(cost) * std::min(1.0, correction());
}

void CostModel::Observe(const WorkCost& cost, double ms) {
  const double predicted = Uncorrected(cost);
  if (!(predicted > 0)) return;
  const double observed = std::clamp(ms, predicted / kLargestCorrection, predicted * kLargestCorrection);
  const double keep = std::exp2(-observed / kHalfLifeMs);
  observed_ms_ = keep * observed_ms_ + observed;
  predicted_ms_ = keep * predicted_ms_ + predicted;
}

std::optional<double> ParseCostHint(std::string_view text) {
  double flops = 0;
  if (!absl::SimpleAtod(absl::string_view(text.data(), text.size()), &flops)) return std::nullopt;
  if (!std::isfinite(flops) || flops < 0) return std::nullopt;
  return flops;
}

}  // namespace attend::server
