// PRECISION_FAST of affine maps, for processors that multiply BFLOAT16 numbers (AVX512-BF16): as linear.cc, with tokens
// and weights in BFLOAT16 and chains over pairs of input features (dot-inl.h), whose sums are floats.
#include <cstdint>

#include "core/kernels/fast_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/fast_linear.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
#if HWY_TARGET == HWY_AVX3
// After foreach_target.h.
#include "core/kernels/dot-inl.h"
#include "core/kernels/linear-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// The sums of a block of rows, and where weights come unpacked a panel of them packed.
int64_t ScratchSize(const LinearTask& task) {
  return (kRowBlock + (task.panels == nullptr ? NumPairs(task.in_features) : 0)) * kWidth;
}

void Pack(const LinearTask& task, void* panels) {
  ForEachPanel(task, nullptr, [&](const LinearPanel& panel) {
    PackPairs<BFloat16>(panel, static_cast<std::uint32_t*>(panels) + NumPairs(task.in_features) * panel.first);
  });
}

void ComputeRows(const LinearPanel& panel, const std::uint32_t* packed, int64_t row, int64_t num_rows) {
  const LinearTask& task = panel.task;
  const int64_t stride = panel.stride(), x_stride = 2 * task.x_stride;
  const char* x = static_cast<const char*>(task.x) + row * x_stride;
  const MutableRows sums{panel.sums, stride};
  for (int64_t s = 0; s < NumPairs(task.in_features); s += kSlab) {
    const int64_t steps = HWY_MIN(kSlab, NumPairs(task.in_features) - s);
    const PairBroadcasts tokens{x + 4 * s, x_stride, 4};
    const PairRows weights{packed + s * stride, stride};
    if (s == 0) {
      Dot<From::kZero>(num_rows, panel.vectors, tokens, weights, steps, sums);
    } else {
      Dot<From::kSums>(num_rows, panel.vectors, tokens, weights, steps, sums);
    }
  }
  WriteRows(panel, row, num_rows);
}

void Linear(const LinearTask& task, float* scratch) {
  auto* own = reinterpret_cast<std::uint32_t*>(scratch + kRowBlock * kWidth);
  ForEachPanel(task, scratch, [&](const LinearPanel& panel) {
    if (task.panels == nullptr) PackPairs<BFloat16>(panel, own);
    const auto* packed = task.panels == nullptr ? own : static_cast<const std::uint32_t*>(panel.Packed());
    for (int64_t row = 0; row < task.num_rows; row += kRowBlock) {
      ComputeRows(panel, packed, row, HWY_MIN(kRowBlock, task.num_rows - row));
    }
  });
}

}  // namespace

const LinearKernels& FastLinearFunctions() {
  static constexpr LinearKernels kKernels = {kWidth, PackedBytes, Pack, ScratchSize, Linear};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES
#endif  // HWY_TARGET == HWY_AVX3

#if HWY_ONCE
namespace attend {
const LinearKernels* FastLinearKernels() { return ATTEND_AVX512_OR_NULL(FastLinearFunctions); }
}  // namespace attend
#endif
