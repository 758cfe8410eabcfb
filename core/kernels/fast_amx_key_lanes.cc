// PRECISION_FAST with keys in vector lanes, for processors with tile registers for BFLOAT16 (AMX-BF16): the sums of
// fast_amx_query_lanes.cc, so the same bits, for a few rows per key/value head.
//
// Keys are read where they are, a tile at a time, and values of two keys are put side by side. What is computed of a
// tile waits for memory, however few the rows are.
#include "core/kernels/fast_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/fast_amx_key_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
#if HWY_TARGET == HWY_AVX3
// After foreach_target.h.
#include "core/kernels/fast_keys-inl.h"
#include "core/kernels/tile_packing-inl.h"
#include "core/kernels/tile_values-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// Two tiles of scores [key][kMaxRows], of keys, and of queries; and one or two of outputs [row][16], of weights and of
// values.
using ScorePlan = TilePlan<2, 1, 0, 2, 3, true>;
using ValuePlan = TilePlan<1, 2, 4, 6, 7>;
using LastValuePlan = TilePlan<1, 1, 4, 6, 7>;

TileShapes ShapesFor(int64_t num_rows) {
  TileShapes shapes = WholeTiles();
  for (int tile : {0, 1, 3}) shapes.Set(tile, kTileSide, 4 * num_rows);
  for (int tile : {4, 5, 6}) shapes.Set(tile, num_rows, kTileBytes);
  return shapes;
}

// Pairs of head dimensions are [pairs, filled up to 16][rows].
int64_t PackedSize(const AttentionTask& task, int64_t num_rows) {
  return NumBlocks(task.head_dim) * kTileSide * num_rows;
}

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  auto* to = reinterpret_cast<std::uint32_t*>(panel.packed);
  std::memset(to, 0, static_cast<size_t>(PackedSize(task, panel.num_rows)) * sizeof(*to));
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const float* query = panel.rows[r].query;
    for (int64_t s = 0; s < task.head_dim / 2; ++s) to[s * panel.num_rows + r] = PairOfFloats(query + 2 * s);
  }
  return {};  // No bound on keys is asked for.
}

int64_t ScratchSize(const AttentionTask& task, int64_t) {
  static_assert(kCopiedFloats <= kSlab * kKeyBlock);
  return (kMaxRows + kSlab) * kKeyBlock + kKeyBlock / 2 * Padded(task.value_dim);
}

// Scores as tiles have them, [key][kMaxRows]: where values come later.
float* TiledScores(const Block& block) { return block.scratch.values; }

template <From kFrom, class AtBlock>
HWY_INLINE void ScoreTiles(const Block& block, LeftTiles keys, int64_t dim, int64_t blocks, const AtBlock& at_block) {
  const int64_t rows = block.panel.num_rows;
  const PairRows queries{reinterpret_cast<const std::uint32_t*>(block.panel.packed) + dim / 2 * rows, rows};
  for (int64_t k = 0; k < block.count; k += 2 * kTileSide, keys.data += 2 * kTileSide * keys.stride) {
    MultiplyTiles<ScorePlan, kFrom>(keys, queries, blocks, {TiledScores(block) + k * kMaxRows, kMaxRows}, at_block);
  }
}

// Calls use(lines) with what requests lines of `rows` ahead of their use.
template <class Use>
HWY_INLINE void WithLinesAhead(const Block& block, const KeyRows& rows, int64_t dim, int64_t bytes, int64_t apart,
                               const Use& use) {
  if (rows.stride != dim) return use(ApartLinesAhead(block, rows, dim, apart));
  if (block.task.far_bytes != 0) return use(LinesAhead<true>(block, rows, dim, bytes));
  use(LinesAhead<false>(block, rows, dim, bytes));
}

HWY_NOINLINE void ScoreWholeBlock(const Block& block) {
  const AttentionTask& task = block.task;
  const auto score = [&](auto lines) __attribute__((always_inline)) {
    ScoreTiles<From::kZero>(
        block, KeyTiles(task, block.first), 0,
        NumBlocks(task.head_dim), [&]() __attribute__((always_inline)) { lines.template Request<2 * kTileSide>(); });
  };
  WithLinesAhead(block, task.keys, task.head_dim, kKeyBytesAhead<BFloat16, 2>, task.keys_ahead, score);
}

HWY_NOINLINE void ScorePartialBlock(const Block& block) {
  const auto score = [&](auto from, LeftTiles keys, int64_t dim, int64_t blocks) {
    ScoreTiles<from()>(block, keys, dim, blocks, [] {});
  };
  ForCopiedKeys(block.task, block.first, block.count, block.scratch.keys, score);
}

// To rows of scores.
void ScaleScores(const Block& block) {
  const Vec scale = Broadcast(block.task.query_scale);
  for (int64_t k = 0; k < block.count; k += kLanes) {
    const float* scores = TiledScores(block) + k * kMaxRows;
    Vec rows[kColumns];
    LoadColumns([scores](int64_t i) { return scores + i * kMaxRows; }, 0, rows);
    for (int64_t r = 0; r < block.panel.num_rows; ++r) {
      hn::Store(hn::Mul(rows[r], scale), FloatTag(), block.scratch.scores + r * kKeyBlock + k);
    }
  }
}

// Weights of the keys that fill a block of 32 up: as those of masked keys.
void FillWeightsUp(const Block& block) {
  const std::uint32_t pad = block.task.select_values ? 0x80008000u : 0;
  const int64_t end = NumBlocks(block.count) * kTileSide;
  for (int64_t r = 0; r < block.panel.num_rows; ++r) {
    std::uint32_t* weights = WeightPairs(block, r);
    for (int64_t s = RoundUp(block.count, kLanes) / 2; s < end; ++s) weights[s] = pad;
  }
}

// Puts values of two keys side by side, as PackValuePairs does; requests lines.
template <class Ahead>
HWY_INLINE void PairWholeValues(const Block& block, std::uint32_t* to, int64_t to_stride, Ahead ahead) {
  const int64_t stride = block.task.values.stride;
  const BFloat16* value = block.task.values.Row<BFloat16>(block.first);
  for (int64_t s = 0; s < kKeyBlock / 2; ++s, value += 2 * stride, to += to_stride) {
    for (int64_t v = 0; v < block.task.value_dim; v += kTileNumbers) {
      ahead.template Request<2>();
      for (int64_t i = v; i < v + kTileNumbers; i += kLanes) {
        const __m512i first = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(value + i)));
        const __m512i second =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(value + stride + i)));
        _mm512_storeu_si512(to + i, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
      }
    }
  }
}

bool AreWholeValues(const Block& block) { return block.count == kKeyBlock && block.task.value_dim % kTileNumbers == 0; }

template <class Use>
HWY_INLINE void WithValuesAhead(const Block& block, const Use& use) {
  const AttentionTask& task = block.task;
  WithLinesAhead(block, task.values, task.value_dim, kValueBytesAhead<BFloat16>, task.values_ahead, use);
}

void AddValuesWithoutTiles(const Block& block, const State& state) {
  const SubnormalsAreZero mode;
  WithValuesAhead(block, [&](auto ahead) {
    block.panel.num_rows == 1 ? AddValuesOfRows<1>(block, state, ahead) : AddValuesOfRows<2>(block, state, ahead);
  });
}

HWY_NOINLINE void PairValues(const Block& block, std::uint32_t* to, int64_t to_stride) {
  const AttentionTask& task = block.task;
  if (AreWholeValues(block)) {
    return WithValuesAhead(
        block, [&](auto ahead) __attribute__((always_inline)) { PairWholeValues(block, to, to_stride, ahead); });
  }
  std::memset(to, 0, static_cast<size_t>(NumBlocks(block.count) * kTileSide * to_stride) * sizeof(*to));
  PackValuePairs(task, block.first, block.first + block.count, to, to_stride);
}

LeftTiles WeightTiles(const Block& block) {
  return {reinterpret_cast<const char*>(WeightPairs(block, 0)), kPairsPerRow * 4, kTileBytes};
}

HWY_NOINLINE void AddAllValues(const Block& block, const State& state, const std::uint32_t* values) {
  const int64_t blocks = NumBlocks(block.count);
  int64_t v = 0;
  const auto add = [&](auto plan) __attribute__((always_inline)) {
    MultiplyTiles<decltype(plan), From::kSums>(WeightTiles(block), {values + v, state.stride}, blocks,
                                               {state.output + v, state.stride}, [] {});
    v += plan.kVectors * kTileSide;
  };
  while (v + 2 * kTileSide <= state.stride) add(ValuePlan());
  if (v < state.stride) add(LastValuePlan());
}

// The pairs of a tile without values that a row does not see, whose weights are -0.
HWY_INLINE void SelectValues(const std::uint32_t* values, int64_t stride, const std::uint32_t* weights,
                             std::uint32_t* to) {
  for (int64_t s = 0; s < kTileSide; ++s) {
    const __mmask32 seen =
        _mm512_cmpneq_epi16_mask(BroadcastPair(weights + s), _mm512_set1_epi16(static_cast<short>(0x8000)));
    _mm512_store_si512(to + s * kTileSide, _mm512_maskz_loadu_epi16(seen, values + s * stride));
  }
}

// The same with the values of masked keys replaced by 0: row by row, of all rows that are computed.
HWY_NOINLINE void AddSelectedValues(const Block& block, const State& state, const std::uint32_t* values) {
  HWY_ALIGN std::uint32_t selected[kTileSide * kTileSide];
  HWY_ALIGN float sums[kMaxRows * kTileSide] = {};
  for (int64_t r = 0; r < block.panel.num_rows; ++r) {
    for (int64_t s = 0; s < NumBlocks(block.count) * kTileSide; s += kTileSide) {
      LeftTiles weights = WeightTiles(block);
      weights.data += 4 * s;
      for (int64_t v = 0; v < state.stride; v += kTileSide) {
        float* output = state.output + r * state.stride + v;
        SelectValues(values + s * state.stride + v, state.stride, WeightPairs(block, r) + s, selected);
        hn::Store(hn::Load(FloatTag(), output), FloatTag(), sums + r * kTileSide);
        MultiplyTiles<LastValuePlan, From::kSums>(weights, {selected, kTileSide}, 1, {sums, kTileSide}, [] {});
        hn::Store(hn::Load(FloatTag(), sums + r * kTileSide), FloatTag(), output);
      }
    }
  }
}

struct TileProducts {
  static constexpr bool kRounds = true;

  static void ComputeScores(const Block& block) {
    if (block.count == kKeyBlock && AreWholeTiles(block.task, block.first, block.count)) {
      ScoreWholeBlock(block);
    } else {
      ScorePartialBlock(block);
    }
    ScaleScores(block);
  }

  static void AddValues(const Block& block, const State& state) {
    RoundWeights(block);
    AddWeights(block, state.rounded);
    if (block.panel.num_rows <= 2 && AreWholeValues(block) && !block.task.select_values) {
      return AddValuesWithoutTiles(block, state);
    }
    FillWeightsUp(block);
    auto* values = reinterpret_cast<std::uint32_t*>(block.scratch.values);
    PairValues(block, values, state.stride);
    if (block.task.select_values) {
      AddSelectedValues(block, state, values);
    } else {
      AddAllValues(block, state, values);
    }
  }
};

void AccumulateTiles(const Panel& panel, int64_t begin, int64_t end, float* data) {
  const TilesInUse tiles(ShapesFor(panel.num_rows));
  Accumulate<TileProducts>(panel, begin, end, data);
}

}  // namespace

const RowKernels& FastAmxKeyLanes() {
  static constexpr RowKernels kKernels = {.max_rows = kMaxRows,
                                          .reads_narrow = true,
                                          .flushes_products = true,
                                          .row_multiple = 1,
                                          .packed_size = PackedSize,
                                          .state_size = StateSize,
                                          .scratch_size = ScratchSize,
                                          .pack = Pack,
                                          .reset = Reset,
                                          .accumulate = AccumulateTiles,
                                          .merge = Merge,
                                          .finish = Finish<TileProducts>};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES
#endif  // HWY_TARGET == HWY_AVX3

#if HWY_ONCE
namespace attend {
const RowKernels* FastAmxKeyLaneKernels() { return ATTEND_AVX512_OR_NULL(FastAmxKeyLanes); }
}  // namespace attend
#endif
