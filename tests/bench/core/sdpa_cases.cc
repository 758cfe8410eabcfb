// Attention of many queries: the share of the machine's multiply-adds that one thread uses, and what a second one adds.
#include <string>
#include <utility>

#include "core/kernels/fast_kernels.h"
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/machine.h"
#include "tests/bench/core/sdpa.h"

namespace attend::bench {
namespace {

double PeakFraction(const Shape& shape) {
  const Sdpa sdpa(shape);
  return MedianQuotient(RateOf(
                            ThreadClock, [&] { sdpa.Compute(); }, sdpa.Flops()),
                        [] { return MeasurePeakFlops(BestInstructionSet()); });
}

// Of the FLOAT32 peak, whatever the type.
void RegisterPeakFraction(const std::string& name, const Shape& shape) {
  Register("core/sdpa/" + name + "/1t/peak_fraction", [shape] { return Figure{PeakFraction(shape)}; });
}

// How much faster PRECISION_FAST computes BFLOAT16 than the exact kernels the same shape in FLOAT32.
Figure FastOverExact(const Shape& shape) {
  if (ChooseFastKernels(FastKernelsMode::kOn, BestInstructionSet()) == FastKernels::kNone) {
    return {.skipped = "this processor does not multiply BFLOAT16 numbers"};
  }
  Shape fast = shape;
  fast.type = DataType::kBFloat16;
  fast.fast = true;
  const Sdpa fast_sdpa(fast), exact_sdpa(shape);
  return {MedianQuotient(RateOf(
                             ThreadClock, [&] { fast_sdpa.Compute(); }, 1),
                         RateOf(
                             ThreadClock, [&] { exact_sdpa.Compute(); }, 1))};
}

double Scaling() {
  const Sdpa sdpa({.heads = 8, .kv_heads = 8, .queries = 2048, .keys = 2048, .dim = 64});
  Executor one({.num_threads = 1}), two({.num_threads = 2});
  const auto rate = [&sdpa](Executor& executor) {
    return RateOf(
        WallClock, [&] { RunOn(executor, [&] { sdpa.Compute(&executor); }); }, sdpa.Flops());
  };
  return MedianQuotient(rate(two), rate(one));
}

}  // namespace

void RegisterSdpaCases() {
  RegisterPeakFraction("f32/T2048/D64", {.queries = 2048, .keys = 2048, .dim = 64});
  RegisterPeakFraction("f32/T2048/D128", {.queries = 2048, .keys = 2048, .dim = 128});
  RegisterPeakFraction("f32/T256/D64", {.queries = 256, .keys = 256, .dim = 64});
  RegisterPeakFraction("f32/causal/T4096/D64", {.queries = 4096, .keys = 4096, .dim = 64, .causal = true});
  RegisterPeakFraction("f32/gqa8/T2048/D128", {.heads = 8, .queries = 2048, .keys = 2048, .dim = 128});
  RegisterPeakFraction("bf16/T2048/D64", {.queries = 2048, .keys = 2048, .dim = 64, .type = DataType::kBFloat16});
  RegisterPeakFraction("f32/mask/T2048/D64", {.queries = 2048, .keys = 2048, .dim = 64, .mask = true});
  RegisterPeakFraction("f32/weights/T1024/D64", {.queries = 1024, .keys = 1024, .dim = 64, .weights = true});
  for (const auto& [name, type] : {std::pair("f32", DataType::kFloat32), {"bf16", DataType::kBFloat16}}) {
    const Shape shape{.heads = 8, .kv_heads = 8, .queries = 16, .keys = 8192, .dim = 128, .type = type};
    RegisterPeakFraction(std::string(name) + "/cross/T16/S8192/H8/D128", shape);
  }
  for (const std::int64_t dim : {64, 128}) {
    const Shape shape{.queries = 2048, .keys = 2048, .dim = dim};
    Register("core/sdpa/bf16/T2048/D" + std::to_string(dim) + "/1t/fast_over_exact_f32",
             [shape] { return FastOverExact(shape); });
  }
  const auto over_float32 = [](const std::string& name, const Shape& shape) {
    Register("core/sdpa/int8/" + name + "/1t/over_f32", [shape] { return Figure{Int8OverFloat32(shape)}; });
  };
  over_float32("T2048/D64", {.queries = 2048, .keys = 2048, .dim = 64});
  over_float32("T2048/D128", {.queries = 2048, .keys = 2048, .dim = 128});
  over_float32("cross/T32/S8192/H8/D128", {.heads = 8, .kv_heads = 8, .queries = 32, .keys = 8192, .dim = 128});
  Register("core/scaling/T2048/H8/D64/2t_over_1t", [] { return Figure{Scaling()}; });
}

}  // namespace attend::bench
