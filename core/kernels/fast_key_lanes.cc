// PRECISION_FAST with keys in vector lanes, for processors that multiply BFLOAT16 numbers (AVX512-BF16): the chains of
// fast_query_lanes.cc, so the same bits, for a few rows per key/value head.
//
// Keys are transposed in registers as pairs of head dimensions; values of two keys are put side by side in registers.
#include "core/kernels/fast_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/fast_key_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
#if HWY_TARGET == HWY_AVX3
// After foreach_target.h.
#include "core/kernels/fast_keys-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kPairColumns = 2 * kColumns;  // Head dimensions that are transposed at a time.
constexpr int64_t kUnit = 2 * kLanes;           // Value dimensions that are put side by side at a time.

int64_t PackedSize(const AttentionTask& task, int64_t num_rows) { return task.head_dim / 2 * num_rows; }
int64_t ScratchSize(const AttentionTask& task, int64_t) {
  return (kMaxRows + kSlab) * kKeyBlock + kKeyBlock / 2 * Padded(task.value_dim);
}

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  auto* to = reinterpret_cast<std::uint32_t*>(panel.packed);
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    for (int64_t s = 0; s < task.head_dim / 2; ++s) *to++ = PairOfFloats(panel.rows[r].query + 2 * s);
  }
  return {};  // No bound on keys is asked for.
}

const std::uint32_t* QueryPairs(const Block& block, int64_t r) {
  return reinterpret_cast<const std::uint32_t*>(block.panel.packed) + r * (block.task.head_dim / 2);
}

// Scores of kGroups groups of kLanes keys from `k` on. Where there are fewer than kRows rows, the last is computed
// again.
template <int kRows, int kGroups, class Ahead>
HWY_NOINLINE void ScoreKeys(const Block& block, int64_t k, Ahead& ahead) {
  const AttentionTask& task = block.task;
  const auto* key = task.keys.Row<BFloat16>(block.first + k);
  const int64_t stride = task.keys.stride;
  const std::uint32_t* query[kRows];
  for (int r = 0; r < kRows; ++r) query[r] = QueryPairs(block, HWY_MIN(r, block.panel.num_rows - 1));
  Vec sum[kGroups][kRows];
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) sum[g][r] = hn::Zero(FloatTag());
  }
  for (int64_t c = 0; c < task.head_dim; c += kPairColumns) {
    HWY_UNROLL(4)
    for (int g = 0; g < kGroups; ++g) {
      Vec pairs[kColumns];
      const BFloat16* group = key + g * kLanes * stride;
      LoadColumns([group, stride](int64_t i) { return reinterpret_cast<const float*>(group + i * stride); }, c / 2,
                  pairs);
      ahead.template Request<kLanes * kPairColumns * 2 / kLine>();
      HWY_UNROLL(8)
      for (int i = 0; i < kColumns; ++i) {
        HWY_UNROLL(8)
        for (int r = 0; r < kRows; ++r) {
          const Pairs left = BroadcastPair(query[r] + c / 2 + i);
          sum[g][r] = AddDots(left, _mm512_castps_si512(pairs[i].raw), sum[g][r]);
        }
      }
    }
  }
  const Vec scale = Broadcast(task.query_scale);
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      hn::Store(hn::Mul(sum[g][r], scale), FloatTag(), block.scratch.scores + r * kKeyBlock + k + g * kLanes);
    }
  }
}

template <int kRows, int kGroups, class Ahead>
void ScoreGroups(const Block& block, Ahead ahead) {
  for (int64_t k = 0; k < kKeyBlock; k += kGroups * kLanes) ScoreKeys<kRows, kGroups>(block, k, ahead);
}

template <int kRows>
void ScoreWholeBlock(const Block& block) {
  constexpr int kInCaches = kGroupsInCaches<kRows>, kFromMemory = kGroupsFromMemory<BFloat16, kRows>;
  const AttentionTask& task = block.task;
  if (task.keys.stride != task.head_dim) {
    ScoreGroups<kRows, 1>(block, ApartLinesAhead(block, task.keys, task.head_dim, task.keys_ahead));
  } else if (task.far_bytes != 0) {
    ScoreGroups<kRows, kFromMemory>(
        block, LinesAhead<true>(block, task.keys, task.head_dim, kKeyBytesAhead<BFloat16, kFromMemory>));
  } else if (task.beyond_caches) {
    ScoreGroups<kRows, kFromMemory>(
        block, LinesAhead<false>(block, task.keys, task.head_dim, kKeyBytesAhead<BFloat16, kFromMemory>));
  } else {
    ScoreGroups<kRows, kInCaches>(
        block, LinesAhead<false>(block, task.keys, task.head_dim, kKeyBytesAhead<BFloat16, kInCaches>));
  }
}

// The same chains for any block: pairs are transposed to the first-level cache a slab at a time.
HWY_NOINLINE void ScorePartialBlock(const Block& block) {
  const AttentionTask& task = block.task;
  auto* keys = reinterpret_cast<std::uint32_t*>(block.scratch.keys);
  const int64_t vectors = RoundUp(block.count, kLanes) / kLanes;
  for (int64_t d = 0; d < task.head_dim; d += 2 * kSlab) {
    const int64_t pairs = HWY_MIN(kSlab, (task.head_dim - d) / 2);
    std::memset(keys, 0, static_cast<size_t>(pairs * kKeyBlock) * sizeof(*keys));
    for (int64_t k = 0; k < block.count; ++k) {
      const BFloat16* key = task.keys.Row<BFloat16>(block.first + k) + d;
      for (int64_t s = 0; s < pairs; ++s) std::memcpy(keys + s * kKeyBlock + k, key + 2 * s, sizeof(*keys));
    }
    const PairBroadcasts queries{reinterpret_cast<const char*>(QueryPairs(block, 0) + d / 2), 2 * task.head_dim, 4};
    for (int64_t v = 0; v < vectors; ++v) {
      const PairRows columns{keys + v * kLanes, kKeyBlock};
      const MutableRows scores{block.scratch.scores + v * kLanes, kKeyBlock};
      if (d == 0) {
        Dot<From::kZero>(block.panel.num_rows, 1, queries, columns, pairs, scores);
      } else {
        Dot<From::kSums>(block.panel.num_rows, 1, queries, columns, pairs, scores);
      }
    }
  }
  for (int64_t i = 0; i < block.panel.num_rows * kKeyBlock; i += kLanes) {
    float* scores = block.scratch.scores + i;
    hn::Store(hn::Mul(hn::Load(FloatTag(), scores), Broadcast(task.query_scale)), FloatTag(), scores);
  }
}

// Sums of value dimensions as unpacking leaves them: blocks of four, the even ones and the odd ones.
struct Unpacked {
  HWY_INLINE void Load(const float* from) {
    const __m512 first = _mm512_loadu_ps(from), second = _mm512_loadu_ps(from + kLanes);
    low.raw = _mm512_permutex2var_ps(first, Even(), second);
    high.raw = _mm512_permutex2var_ps(first, Odd(), second);
  }
  HWY_INLINE void Store(float* to) const {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(low.raw, first, high.raw));
    _mm512_storeu_ps(to + kLanes, _mm512_permutex2var_ps(low.raw, second, high.raw));
  }
  static HWY_INLINE __m512i Even() {
    return _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  }
  static HWY_INLINE __m512i Odd() {
    return _mm512_setr_epi32(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
  Vec low;
  Vec high;
};

// Adds kUnits units of value dimensions from `v` on of some keys of a block, an even number, to kRows rows from `row`
// on.
template <int kRows, int kUnits, class Ahead>
HWY_INLINE void AddTile(const Block& block, const State& state, Keys keys, Ahead& ahead, int64_t row, int64_t v) {
  const int64_t stride = block.task.values.stride;
  const BFloat16* value = block.task.values.Row<BFloat16>(block.first + keys.begin) + v;
  const std::uint32_t* weights = WeightPairs(block, row);
  float* output = state.output + row * state.stride + v;
  Unpacked sum[kRows][kUnits];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int u = 0; u < kUnits; ++u) sum[r][u].Load(output + r * state.stride + u * kUnit);
  }
  for (int64_t s = keys.begin / 2; s < keys.end / 2; ++s, value += 2 * stride) {
    if (row == 0) ahead.template Request<2 * kUnits>();
    HWY_UNROLL(4)
    for (int u = 0; u < kUnits; ++u) {
      const Pairs first = _mm512_loadu_si512(value + u * kUnit);
      const Pairs second = _mm512_loadu_si512(value + stride + u * kUnit);
      const Pairs low = _mm512_unpacklo_epi16(first, second);
      const Pairs high = _mm512_unpackhi_epi16(first, second);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        const Pairs weight = BroadcastPair(weights + r * kPairsPerRow + s);
        sum[r][u].low = AddDots(low, weight, sum[r][u].low);
        sum[r][u].high = AddDots(high, weight, sum[r][u].high);
      }
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int u = 0; u < kUnits; ++u) sum[r][u].Store(output + r * state.stride + u * kUnit);
  }
}

// The units of value dimensions that kRows rows take at a time, at most.
template <int kRows>
constexpr int kMostUnits = HWY_MIN(4, 8 / kRows);

template <int kRows, class Ahead>
HWY_NOINLINE void AddRows(const Block& block, const State& state, Keys keys, Ahead& ahead, int64_t row) {
  constexpr int kMost = kMostUnits<kRows>;
  int64_t v = 0;
  for (; v + kMost * kUnit <= block.task.value_dim; v += kMost * kUnit) {
    AddTile<kRows, kMost>(block, state, keys, ahead, row, v);
  }
  for (; v < block.task.value_dim; v += kUnit) AddTile<kRows, 1>(block, state, keys, ahead, row, v);
}

template <class Ahead>
void AddAllRows(const Block& block, const State& state, Keys keys, Ahead& ahead) {
  const int64_t rows = block.panel.num_rows;
  int64_t row = 0;
  for (; row + 8 <= rows; row += 8) AddRows<8>(block, state, keys, ahead, row);
  for (; row + 4 <= rows; row += 4) AddRows<4>(block, state, keys, ahead, row);
  for (; row + 2 <= rows; row += 2) AddRows<2>(block, state, keys, ahead, row);
  for (; row < rows; ++row) AddRows<1>(block, state, keys, ahead, row);
}

HWY_NOINLINE void AddWholeValues(const Block& block, const State& state) {
  const AttentionTask& task = block.task;
  const bool one_pass = block.panel.num_rows <= 2 && task.value_dim <= kMostUnits<2> * kUnit;
  const int64_t step = one_pass ? kKeyBlock : kPassedKeys;
  const int64_t bytes = one_pass ? kValueBytesAhead<BFloat16> : kPassedBytesAhead;
  LinesAhead<false> dense(block, task.values, task.value_dim, bytes);
  LinesAhead<true> far(block, task.values, task.value_dim, bytes);
  ApartLinesAhead apart(block, task.values, task.value_dim, task.values_ahead);
  for (Keys keys{0, step}; keys.begin < kKeyBlock; keys = {keys.end, keys.end + step}) {
    if (task.values.stride != task.value_dim) {
      AddAllRows(block, state, keys, apart);
    } else if (task.far_bytes != 0) {
      AddAllRows(block, state, keys, far);
    } else {
      AddAllRows(block, state, keys, dense);
    }
  }
}

// The same chains for any block, and for masked keys whose values are left out because their weight is -0.
HWY_NOINLINE void AddPartialValues(const Block& block, const State& state) {
  const AttentionTask& task = block.task;
  auto* values = reinterpret_cast<std::uint32_t*>(block.scratch.values);
  PackValuePairs(task, block.first, block.first + block.count, values, state.stride);
  for (int64_t r = 0; r < block.panel.num_rows; ++r) {
    const std::uint32_t* weights = WeightPairs(block, r);
    for (int64_t s = 0; s < (block.count + 1) / 2; ++s) {
      __mmask32 counts = ~__mmask32{0};
      if (task.select_values) {
        if ((weights[s] & 0xffffu) == 0x8000u) counts &= 0xaaaaaaaau;
        if (weights[s] >> 16 == 0x8000u) counts &= 0x55555555u;
      }
      for (int64_t v = 0; v < task.value_dim; v += kLanes) {
        float* output = state.output + r * state.stride + v;
        const Pairs pairs = _mm512_maskz_mov_epi16(counts, _mm512_loadu_si512(values + s * state.stride + v));
        hn::StoreU(AddDots(pairs, BroadcastPair(weights + s), hn::LoadU(FloatTag(), output)), FloatTag(), output);
      }
    }
  }
}

struct FastProducts {
  static constexpr bool kRounds = true;

  static void ComputeScores(const Block& block) {
    if (block.count != kKeyBlock || block.task.head_dim % kPairColumns != 0) {
      ScorePartialBlock(block);
    } else if (block.panel.num_rows == 1) {
      ScoreWholeBlock<1>(block);
    } else if (block.panel.num_rows == 2) {
      ScoreWholeBlock<2>(block);
    } else if (block.panel.num_rows <= 4) {
      ScoreWholeBlock<4>(block);
    } else {
      ScoreWholeBlock<8>(block);
    }
  }

  static void AddValues(const Block& block, const State& state) {
    RoundWeights(block);
    AddWeights(block, state.rounded);
    if (block.task.select_values || block.count != kKeyBlock || block.task.value_dim % kUnit != 0) {
      AddPartialValues(block, state);
    } else {
      AddWholeValues(block, state);
    }
  }
};

}  // namespace

const RowKernels& FastKeyLanes() {
  static constexpr RowKernels kKernels = {.max_rows = kMaxRows,
                                          .reads_narrow = true,
                                          .flushes_products = true,
                                          .row_multiple = 1,
                                          .packed_size = PackedSize,
                                          .state_size = StateSize,
                                          .scratch_size = ScratchSize,
                                          .pack = Pack,
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
const RowKernels* FastKeyLaneKernels() { return ATTEND_AVX512_OR_NULL(FastKeyLanes); }
}  // namespace attend
#endif
