// PRECISION_FAST with queries in vector lanes, for processors with tile registers for BFLOAT16 (AMX-BF16).
//
// As fast_query_lanes.cc, but both products are those of tile-inl.h: scores over blocks of 32 head dimensions, outputs
// over blocks of 32 keys, whose values are transposed before. Keys are read where they are.
// The sums are the same however rows and keys are cut, and so are the bits.
#include "core/kernels/fast_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/fast_amx_query_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
#if HWY_TARGET == HWY_AVX3
// After foreach_target.h.
#include "core/kernels/fast_queries-inl.h"
#include "core/kernels/tile_packing-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// The output is filled up to whole tiles.
int64_t TiledStateSize(const AttentionTask& task, int64_t num_rows) {
  return (RoundUp(task.value_dim, kTileSide) + 3) * Width(num_rows);
}

void ResetTiled(const Panel& panel, float* data) {
  std::memset(data, 0, static_cast<size_t>(TiledStateSize(*panel.task, panel.num_rows)) * sizeof(*data));
  Reset(panel, data);
}

// Scores, and behind them a copy of keys.
int64_t ScoreFloats(int64_t num_rows) { return (kKeyBlock + 1) * Width(num_rows); }
int64_t TiledScratchSize(const AttentionTask&, int64_t num_rows) { return ScoreFloats(num_rows) + kCopiedFloats; }

struct TileProducts : FastWeights<kTileSide> {
  static HWY_NOINLINE void ComputeScores(const Block& block) {
    const AttentionTask& task = block.task;
    const auto* queries = reinterpret_cast<const std::uint32_t*>(block.panel.packed);
    const MutableRows scores{block.scores, block.width};
    const int64_t tiles = NumTiles(block.count), vectors = block.width / kLanes;
    if (AreWholeTiles(task, block.first, block.count)) {
      DotTiles<From::kZero>(tiles, vectors, KeyTiles(task, block.first), {queries, block.width},
                            NumBlocks(task.head_dim), scores);
    } else {
      float* copy = block.scores + ScoreFloats(block.panel.num_rows);
      ForCopiedKeys(task, block.first, block.count, copy, [&](auto from, LeftTiles keys, int64_t dim, int64_t blocks) {
        DotTiles<from()>(tiles, vectors, keys, {queries + dim / 2 * block.width, block.width}, blocks, scores);
      });
    }
    const Vec scale = Broadcast(task.query_scale);
    for (int64_t i = 0; i < block.count * block.width; i += kLanes) {
      hn::Store(hn::Mul(hn::Load(FloatTag(), block.scores + i), scale), FloatTag(), block.scores + i);
    }
  }

  static LeftTiles ValueTiles(const Block& block, int64_t key) {
    return {reinterpret_cast<const char*>(block.task.ValuePairs(block.first + key)), kTileBytes,
            kTileBytes * block.task.value_pairs_stride};
  }
  static PairRows Weights(const Block& block) {
    return {reinterpret_cast<const std::uint32_t*>(block.scores), block.width};
  }

  static HWY_NOINLINE void AddValues(const Block& block, const State& state) {
    DotTiles<From::kSums>(NumTiles(block.task.value_dim), block.width / kLanes, ValueTiles(block, 0), Weights(block),
                          NumBlocks(block.count), {state.output, block.width});
  }

  // A tile of values without those that row r does not see, whose weights are -0.
  static HWY_INLINE void SelectValues(const char* values, PairRows weights, int64_t r, std::uint32_t* to) {
    HWY_ALIGN std::uint32_t own[kTileSide];
    for (int64_t s = 0; s < kTileSide; ++s) own[s] = weights.data[s * weights.stride + r];
    const __mmask32 seen =
        _mm512_cmpneq_epi16_mask(_mm512_load_si512(own), _mm512_set1_epi16(static_cast<short>(0x8000)));
    for (int64_t v = 0; v < kTileSide; ++v) {
      _mm512_store_si512(to + v * kTileSide, _mm512_maskz_loadu_epi16(seen, values + v * kTileBytes));
    }
  }

  // As AddValues, but the value of a masked key is replaced by 0: row by row, of a tile of rows that is computed.
  static HWY_NOINLINE void AddSelectedValues(const Block& block, const State& state) {
    HWY_ALIGN std::uint32_t selected[kTileSide * kTileSide];
    HWY_ALIGN float sums[kTileSide * kTileSide] = {};
    for (int64_t key = 0; key < block.count; key += kTileNumbers) {
      const LeftTiles values = ValueTiles(block, key);
      for (int64_t r = 0; r < block.panel.num_rows; ++r) {
        const int64_t lane = r % kLanes;
        const PairRows weights{Weights(block).data + key / 2 * block.width + r - lane, block.width};
        for (int64_t v = 0; v < block.task.value_dim; v += kTileSide) {
          float* output = state.output + v * block.width + r;
          for (int64_t i = 0; i < kTileSide; ++i) sums[i * kTileSide + lane] = output[i * block.width];
          SelectValues(values.data + v * kTileBytes, weights, lane, selected);
          const LeftTiles tile{reinterpret_cast<const char*>(selected), kTileBytes, 0};
          DotTiles<From::kSums>(1, 1, tile, weights, 1, {sums, kTileSide});
          for (int64_t i = 0; i < kTileSide; ++i) output[i * block.width] = sums[i * kTileSide + lane];
        }
      }
    }
  }
};

void AccumulateTiles(const Panel& panel, int64_t begin, int64_t end, float* data) {
  const TilesInUse tiles(WholeTiles());
  Accumulate<TileProducts>(panel, begin, end, data);
}

}  // namespace

const RowKernels& FastAmxQueryLanes() {
  static constexpr RowKernels kKernels = {.max_rows = kMaxRows,
                                          .reads_narrow = true,
                                          .flushes_products = true,
                                          .row_multiple = kLanes,
                                          .packed_size = PackedSize<kTileSide>,
                                          .state_size = TiledStateSize,
                                          .scratch_size = TiledScratchSize,
                                          .pack_values = PackTransposedValues,
                                          .pack = Pack<kTileSide>,
                                          .largest_key = LargestKey,
                                          .reset = ResetTiled,
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
const RowKernels* FastAmxQueryLaneKernels() { return ATTEND_AVX512_OR_NULL(FastAmxQueryLanes); }
}  // namespace attend
#endif
