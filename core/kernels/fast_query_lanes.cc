// PRECISION_FAST with queries in vector lanes, for processors that multiply BFLOAT16 numbers (AVX512-BF16).
//
// As query_lanes.cc, but both products add pairs of BFLOAT16 products to float sums (dot-inl.h): scores over pairs of
// head dimensions, outputs over pairs of keys, whose values are put side by side before. The scale is applied to whole
// scores, and weights are rounded to BFLOAT16 for the second product. Outputs are divided by the sum of the rounded
// weights, so that they stay means of values; log-sum-exp comes from the sum before rounding.
// The chains are the same however rows and keys are cut, and so are the bits.
#include "core/kernels/fast_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/fast_query_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
#if HWY_TARGET == HWY_AVX3
// After foreach_target.h.
#include "core/kernels/fast_queries-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

struct FastProducts : FastWeights<1> {
  static HWY_NOINLINE void ComputeScores(const Block& block) {
    const AttentionTask& task = block.task;
    const PairBroadcasts keys{reinterpret_cast<const char*>(task.keys.Row<BFloat16>(block.first)),
                              task.keys.stride * static_cast<int64_t>(sizeof(BFloat16)), 2 * sizeof(BFloat16)};
    const PairRows queries{reinterpret_cast<const std::uint32_t*>(block.panel.packed), block.width};
    Dot<From::kZero>(block.count, block.width / kLanes, keys, queries, task.head_dim / 2, {block.scores, block.width},
                     task.query_scale);
  }

  static HWY_NOINLINE void AddValues(const Block& block, const State& state) {
    const PairBroadcasts values{reinterpret_cast<const char*>(block.task.ValuePairs(block.first)),
                                sizeof(std::uint32_t),
                                block.task.value_pairs_stride * static_cast<int64_t>(sizeof(std::uint32_t))};
    const PairRows weights{reinterpret_cast<const std::uint32_t*>(block.scores), block.width};
    Dot<From::kSums>(block.task.value_dim, block.width / kLanes, values, weights, NumPairs<1>(block.count),
                     {state.output, block.width});
  }

  // As AddValues, but the value of a masked key is replaced by 0.
  static HWY_NOINLINE void AddSelectedValues(const Block& block, const State& state) {
    const FloatTag d;
    for (int64_t s = 0; s < NumPairs<1>(block.count); ++s) {
      const std::uint32_t* values = block.task.ValuePairs(block.first + 2 * s);
      for (int64_t r = 0; r < block.width; r += kLanes) {
        const Pairs weights = _mm512_loadu_si512(block.scores + s * block.width + r);
        const __mmask32 counts = _mm512_cmpneq_epi16_mask(weights, _mm512_set1_epi16(static_cast<short>(0x8000)));
        for (int64_t v = 0; v < block.task.value_dim; ++v) {
          float* o = state.output + v * block.width + r;
          const Pairs selected = _mm512_maskz_mov_epi16(counts, BroadcastPair(values + v));
          hn::Store(AddDots(selected, weights, hn::Load(d, o)), d, o);
        }
      }
    }
  }
};

}  // namespace

const RowKernels& FastQueryLanes() {
  static constexpr RowKernels kKernels = {.max_rows = kMaxRows,
                                          .reads_narrow = true,
                                          .flushes_products = true,
                                          .row_multiple = kLanes,
                                          .packed_size = PackedSize<1>,
                                          .state_size = StateSize,
                                          .scratch_size = ScratchSize,
                                          .pack_values = PackValuePairs,
                                          .pack = Pack<1>,
                                          .largest_key = LargestKey,
                                          .reset = Reset,
                                          .accumulate = Accumulate<FastProducts>,
                                          .merge = Merge,
                                          .finish = Finish<FastProducts>};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES
#endif  // HWY_TARGET == HWY_AVX3

#if HWY_ONCE
namespace attend {
const RowKernels* FastQueryLaneKernels() { return ATTEND_AVX512_OR_NULL(FastQueryLanes); }
}  // namespace attend
#endif
