// Products of matrices of BFLOAT16 numbers by the tile registers of AMX:
//
//   c[i][lane] (+)= sum over blocks of 32 numbers, ascending, of even(i, lane) + odd(i, lane)
//
// where even and odd are chains of float multiply-adds from 0 over the first and the second numbers of a block's pairs:
// the arithmetic of TDPBF16PS, which rounds to nearest, takes and gives subnormal numbers as 0, and knows no other
// mode. Zeros that fill a block up change no more than the sign of a zero. Included for AVX-512 alone.
//
// As assembly, because GCC's intrinsics take no register numbers from templates and do not say that they read memory.
#ifndef ATTEND_CORE_KERNELS_TILE_INL_H_
#define ATTEND_CORE_KERNELS_TILE_INL_H_

#include <immintrin.h>

#include <utility>

#include "core/kernels/dot-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kTileSide = 16;                // Rows of a tile; and floats, or pairs of numbers, of a row.
constexpr int64_t kTileNumbers = 2 * kTileSide;  // BFLOAT16 numbers of a row.
constexpr int64_t kTileBytes = 4 * kTileSide;    // Of a row.
constexpr int kTileRegisters = 8;

// What LDTILECFG reads.
struct TileShapes {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  void Set(int tile, int64_t num_rows, int64_t bytes) {
    rows[tile] = static_cast<std::uint8_t>(num_rows);
    row_bytes[tile] = static_cast<std::uint16_t>(bytes);
  }
};

HWY_INLINE TileShapes WholeTiles() {
  TileShapes shapes;
  for (int tile = 0; tile < kTileRegisters; ++tile) shapes.Set(tile, kTileSide, kTileBytes);
  return shapes;
}

// This thread's tile registers while it lives. Afterwards they hold nothing that a change of threads would have to
// save.
class TilesInUse {
 public:
  explicit TilesInUse(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
  ~TilesInUse() { asm volatile("tilerelease"); }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
};

// While it lives, this thread's float operations take and give subnormal numbers as 0, as tiles do. What is computed so
// must be in a function of its own that is not inlined: the compiler knows nothing of modes.
class SubnormalsAreZero {
 public:
  SubnormalsAreZero() { _mm_setcsr(before_ | 0x8040); }
  ~SubnormalsAreZero() { _mm_setcsr(before_); }
  SubnormalsAreZero(const SubnormalsAreZero&) = delete;
  SubnormalsAreZero& operator=(const SubnormalsAreZero&) = delete;

 private:
  unsigned int before_ = _mm_getcsr();
};

// `stride` is in bytes.
template <int kTile>
HWY_INLINE void LoadTile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
HWY_INLINE void StoreTile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
HWY_INLINE void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kSum, int kLeft, int kRight>
HWY_INLINE void AddTileProducts() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
}

// Rows of numbers, `stride` bytes apart, whose next block of 32 numbers is `step` bytes further.
struct LeftTiles {
  const char* data;
  int64_t stride;
  int64_t step;
};

// Which registers hold kRows x kVectors tiles of sums, a tile of the left matrix, and one or all of the right one.
template <int kRows_, int kVectors_, int kSums_, int kLeft_, int kRight_, bool kAllRight_ = false>
struct TilePlan {
  static constexpr int kRows = kRows_, kVectors = kVectors_, kSums = kSums_, kLeft = kLeft_, kRight = kRight_;
  static constexpr bool kAllRight = kAllRight_;
};

// Calls use(std::integral_constant) for 0 to kCount - 1.
template <int kCount, class Use>
HWY_INLINE void Unrolled(const Use& use) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) __attribute__((always_inline)) {
    (use(std::integral_constant<int, kIndex>()), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

// Tiles of c, whose rows are `c.stride` floats apart, over `blocks` blocks; b has 16 rows of pairs per block. Calls
// at_block() at each.
template <class Plan, From kFrom, class AtBlock>
HWY_INLINE void MultiplyTiles(LeftTiles a, PairRows b, int64_t blocks, MutableRows c, const AtBlock& at_block) {
  const int64_t b_stride = b.stride * 4, c_stride = c.stride * 4;
  constexpr int kTiles = Plan::kRows * Plan::kVectors;
  const auto sums_at = [&](auto i) __attribute__((always_inline)) {
    return c.data + i / Plan::kVectors * kTileSide * c.stride + i % Plan::kVectors * kTileSide;
  };
  Unrolled<kTiles>([&](auto i) __attribute__((always_inline)) {
    if constexpr (kFrom == From::kSums) LoadTile<Plan::kSums + i>(sums_at(i), c_stride);
    if constexpr (kFrom == From::kZero) ZeroTile<Plan::kSums + i>();
  });
  for (int64_t block = 0; block < blocks; ++block, a.data += a.step, b.data += kTileSide * b.stride) {
    const auto load_right = [&](auto v) __attribute__((always_inline)) {
      LoadTile<Plan::kRight + (Plan::kAllRight ? v : 0)>(b.data + v * kTileSide, b_stride);
    };
    if constexpr (Plan::kAllRight) Unrolled<Plan::kVectors>(load_right);
    Unrolled<Plan::kRows>([&](auto r) __attribute__((always_inline)) {
      LoadTile<Plan::kLeft>(a.data + r * kTileSide * a.stride, a.stride);
      Unrolled<Plan::kVectors>([&](auto v) __attribute__((always_inline)) {
        if constexpr (!Plan::kAllRight) load_right(v);
        AddTileProducts<Plan::kSums + r * Plan::kVectors + v, Plan::kLeft, Plan::kRight + (Plan::kAllRight ? v : 0)>();
      });
    });
    at_block();
  }
  Unrolled<kTiles>([&](auto i) __attribute__((always_inline)) { StoreTile<Plan::kSums + i>(sums_at(i), c_stride); });
}

// All tiles of rows, as many at a time as registers allow.
template <class Plan, class OneRow, From kFrom>
HWY_NOINLINE void MultiplyAllRows(int64_t tiles, LeftTiles a, PairRows b, int64_t blocks, MutableRows c) {
  const auto multiply = [&](auto plan) __attribute__((always_inline)) {
    MultiplyTiles<decltype(plan), kFrom>(a, b, blocks, c, [] {});
    a.data += plan.kRows * kTileSide * a.stride;
    c.data += plan.kRows * kTileSide * c.stride;
    tiles -= plan.kRows;
  };
  while (tiles >= Plan::kRows) multiply(Plan());
  while (tiles > 0) multiply(OneRow());
}

// c is (tiles * 16) x (vectors * 16), vectors at most 3. REQUIRES: WholeTiles().
template <From kFrom>
HWY_INLINE void DotTiles(int64_t tiles, int64_t vectors, LeftTiles a, PairRows b, int64_t blocks, MutableRows c) {
  switch (vectors) {
    case 3:
      return MultiplyAllRows<TilePlan<2, 3, 0, 6, 7>, TilePlan<1, 3, 0, 3, 4, true>, kFrom>(tiles, a, b, blocks, c);
    case 2:
      return MultiplyAllRows<TilePlan<2, 2, 0, 4, 5, true>, TilePlan<1, 2, 0, 2, 3, true>, kFrom>(tiles, a, b, blocks,
                                                                                                  c);
    default:
      return MultiplyAllRows<TilePlan<4, 1, 0, 4, 5, true>, TilePlan<1, 1, 0, 1, 2, true>, kFrom>(tiles, a, b, blocks,
                                                                                                  c);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES

#endif  // ATTEND_CORE_KERNELS_TILE_INL_H_
