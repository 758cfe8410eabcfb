// How keys and values become tiles (tile-inl.h). Included for AVX-512 alone.
#ifndef ATTEND_CORE_KERNELS_TILE_PACKING_INL_H_
#define ATTEND_CORE_KERNELS_TILE_PACKING_INL_H_

#include <cstring>

#include "core/kernels/tile-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// Blocks of 32 numbers.
inline int64_t NumBlocks(int64_t count) { return CeilDiv(count, kTileNumbers); }
inline int64_t NumTiles(int64_t rows) { return CeilDiv(rows, kTileSide); }

// Whether whole tiles of a block's keys can be read where they are: nothing else is in them.
inline bool AreWholeTiles(const AttentionTask& task, int64_t first, int64_t count) {
  return task.head_dim % kTileNumbers == 0 && first + RoundUp(count, kTileSide) <= task.key_length;
}
inline LeftTiles KeyTiles(const AttentionTask& task, int64_t first) {
  return {reinterpret_cast<const char*>(task.keys.Row<BFloat16>(first)), 2 * task.keys.stride, kTileBytes};
}

// Otherwise they are copied with zeros around them, kCopiedDims head dimensions at a time.
constexpr int64_t kCopiedDims = 128;
constexpr int64_t kCopiedFloats = kKeyBlock * kCopiedDims / 2;  // The memory that takes.

// Head dimensions from `dim` on of keys [first, first + count).
inline LeftTiles CopyKeys(const AttentionTask& task, int64_t first, int64_t count, int64_t dim, float* memory) {
  auto* to = reinterpret_cast<BFloat16*>(memory);
  std::memset(memory, 0, kCopiedFloats * sizeof(*memory));
  const auto bytes = static_cast<size_t>(HWY_MIN(kCopiedDims, task.head_dim - dim)) * sizeof(*to);
  for (int64_t k = 0; k < count; ++k) {
    std::memcpy(to + k * kCopiedDims, task.keys.Row<BFloat16>(first + k) + dim, bytes);
  }
  return {reinterpret_cast<const char*>(to), 2 * kCopiedDims, kTileBytes};
}

// Scores of keys [first, first + count) before they are scaled: calls add(from, keys, dim, blocks), where `from` is
// From::kZero or From::kSums as a constant, for head dimensions from `dim` on.
template <class Add>
HWY_INLINE void ForCopiedKeys(const AttentionTask& task, int64_t first, int64_t count, float* memory, const Add& add) {
  for (int64_t dim = 0; dim < task.head_dim; dim += kCopiedDims) {
    const LeftTiles keys = CopyKeys(task, first, count, dim, memory);
    const int64_t blocks = NumBlocks(HWY_MIN(kCopiedDims, task.head_dim - dim));
    if (dim == 0) {
      add(std::integral_constant<From, From::kZero>(), keys, dim, blocks);
    } else {
      add(std::integral_constant<From, From::kSums>(), keys, dim, blocks);
    }
  }
}

// Transposes the values of 32 keys, of which `count` are there: [value_dim, filled up to 16][32].
inline void TransposeValues(const AttentionTask& task, int64_t first, int64_t count, std::uint32_t* to) {
  const BFloat16 zeros[kLanes] = {};
  for (int64_t v = 0; v < task.value_dim; v += kLanes) {
    const auto there = static_cast<__mmask16>(LowBits(HWY_MIN(task.value_dim - v, kLanes)));
    const auto load = [&](int64_t k) __attribute__((always_inline)) {
      const BFloat16* row = k < count ? task.values.Row<BFloat16>(first + k) + v : zeros;
      return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, row));
    };
    Vec tile[kLanes];
    HWY_UNROLL(16)
    for (int64_t s = 0; s < kLanes; ++s) {
      tile[s].raw = _mm512_castsi512_ps(_mm512_or_si512(load(2 * s), _mm512_slli_epi32(load(2 * s + 1), 16)));
    }
    Transpose(tile);
    for (int64_t i = 0; i < kLanes; ++i)
      hn::StoreU(tile[i], FloatTag(), reinterpret_cast<float*>(to) + (v + i) * kLanes);
  }
}

// What RowKernels::pack_values does here: transposed values of 32 keys after another, each in the place of 16 rows.
inline void PackTransposedValues(const AttentionTask& task, int64_t begin, int64_t end, std::uint32_t* to,
                                 int64_t to_stride) {
  for (int64_t j = begin; j < end; j += kTileNumbers, to += kTileSide * to_stride) {
    TransposeValues(task, j, HWY_MIN(kTileNumbers, end - j), to);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES

#endif  // ATTEND_CORE_KERNELS_TILE_PACKING_INL_H_
