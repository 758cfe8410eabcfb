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
#include "core/kernels/dot-inl.h"
#include "core/kernels/query_softmax-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

int64_t NumPairs(int64_t count) { return (count + 1) / 2; }

// Pairs of head dimensions are [head_dim / 2][width].
int64_t PackedSize(const AttentionTask& task, int64_t num_rows) { return task.head_dim / 2 * Width(num_rows); }

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  const int64_t width = Width(panel.num_rows);
  auto* to = reinterpret_cast<std::uint32_t*>(panel.packed);
  std::memset(to, 0, static_cast<size_t>(task.head_dim / 2 * width) * sizeof(*to));
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const float* query = panel.rows[r].query;
    AddMagnitudes(query, task.head_dim, magnitudes);
    for (int64_t s = 0; s < task.head_dim / 2; ++s) to[s * width + r] = PairOfFloats(query + 2 * s);
  }
  // Products are scaled after they have been added up.
  return {false, Largest(magnitudes) * HWY_MAX(1.0f, std::fabs(task.query_scale))};
}

float LargestKey(const AttentionTask& task, int64_t begin, int64_t end) {
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t j = begin; j < end; ++j) AddMagnitudes(task.keys.Row<BFloat16>(j), task.head_dim, magnitudes);
  return Largest(magnitudes);
}

struct FastProducts {
  static constexpr bool kRounds = true;

  static HWY_NOINLINE void ComputeScores(const Block& block) {
    const AttentionTask& task = block.task;
    const PairBroadcasts keys{reinterpret_cast<const char*>(task.keys.Row<BFloat16>(block.first)),
                              task.keys.stride * static_cast<int64_t>(sizeof(BFloat16)), 2 * sizeof(BFloat16)};
    const PairRows queries{reinterpret_cast<const std::uint32_t*>(block.panel.packed), block.width};
    Dot<From::kZero>(block.count, block.width / kLanes, keys, queries, task.head_dim / 2, {block.scores, block.width},
                     task.query_scale);
  }

  // Turns scores of two keys into a pair of weights, in place from the front: pair s is row s. Marks masked keys as
  // ExactProducts does.
  static HWY_NOINLINE void Exponentiate(const Block& block, const State& state) {
    const FloatTag d;
    const bool mark = block.task.select_values;
    for (int64_t r = 0; r < block.width; r += kLanes) {
      const Vec subtract = FiniteMaximum(hn::Load(d, state.max + r));
      const auto weight = [&](int64_t k) __attribute__((always_inline)) {
        if (k >= block.count) return mark ? Broadcast(-0.0f) : hn::Zero(d);
        const Vec score = hn::Load(d, block.scores + k * block.width + r);
        const Vec p = Exp2(hn::Sub(score, subtract));
        return mark ? hn::IfThenElse(hn::Eq(score, Broadcast(-kInfinity)), Broadcast(-0.0f), p) : p;
      };
      Vec sum = hn::Load(d, state.sum + r);
      Vec rounded = hn::Load(d, state.rounded + r);
      for (int64_t s = 0; s < NumPairs(block.count); ++s) {
        const Vec first = weight(2 * s);
        const Vec second = weight(2 * s + 1);
        sum = hn::Add(hn::Add(sum, first), second);
        const Pairs pairs = RoundToPairs(first, second);
        rounded = hn::Add(hn::Add(rounded, FirstOf(pairs)), SecondOf(pairs));
        _mm512_storeu_si512(block.scores + s * block.width + r, pairs);
      }
      hn::Store(sum, d, state.sum + r);
      hn::Store(rounded, d, state.rounded + r);
    }
  }

  static HWY_NOINLINE void AddValues(const Block& block, const State& state) {
    const PairBroadcasts values{reinterpret_cast<const char*>(block.task.ValuePairs(block.first)),
                                sizeof(std::uint32_t),
                                block.task.value_pairs_stride * static_cast<int64_t>(sizeof(std::uint32_t))};
    const PairRows weights{reinterpret_cast<const std::uint32_t*>(block.scores), block.width};
    Dot<From::kSums>(block.task.value_dim, block.width / kLanes, values, weights, NumPairs(block.count),
                     {state.output, block.width});
  }

  // As AddValues, but the value of a masked key is replaced by 0.
  static HWY_NOINLINE void AddSelectedValues(const Block& block, const State& state) {
    const FloatTag d;
    for (int64_t s = 0; s < NumPairs(block.count); ++s) {
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
                                          .packed_size = PackedSize,
                                          .state_size = StateSize,
                                          .scratch_size = ScratchSize,
                                          .pack_values = PackValuePairs,
                                          .pack = Pack,
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
#if HWY_TARGETS & HWY_AVX3
const RowKernels* FastQueryLaneKernels() { return &N_AVX3::FastQueryLanes(); }
#else
const RowKernels* FastQueryLaneKernels() { return nullptr; }
#endif
}  // namespace attend
#endif
