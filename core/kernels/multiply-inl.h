// The one matrix micro-kernel that every product goes through. Included once per instruction set.
//
//   c[i][lane] (+)= sum over s ascending of a(i, s) * b[s][lane]
//
// a is read an element at a time and broadcast, in its natural layout; b and c are rows of vectors. Each element of c
// is one chain of fused multiply-adds in a register, so neither the tile's shape nor the vector's width shows in its
// bits. With `a` along its rows it gives scores (a: keys or queries) and projections (a: tokens); across its rows, the
// sum over values transposed (a: values, of which a column is an output's chain).
#include "core/kernels/transpose-inl.h"

#if defined(ATTEND_CORE_KERNELS_MULTIPLY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_MULTIPLY_INL_H_
#undef ATTEND_CORE_KERNELS_MULTIPLY_INL_H_
#else
#define ATTEND_CORE_KERNELS_MULTIPLY_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {

// Element (i, s) of a is data[i * stride + s] along the rows, data[s * stride + i] across them.
enum class Walk { kAlongRows, kAcrossRows };

struct Broadcasts {
  const float* data;
  int64_t stride;
};
struct Rows {
  const float* data;
  int64_t stride;
};
struct MutableRows {
  float* data;
  int64_t stride;
};

// 8 x 3 accumulators fill the 32 registers of AVX-512 and NEON, 4 x 3 the 16 of the others.
constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON;
constexpr int kTileRows = kManyRegisters ? 8 : 4;
constexpr int kTileVectors = 3;

template <int kRows, int kVectors, Walk kWalk>
HWY_INLINE void MultiplyTile(Broadcasts a, Rows b, int64_t steps, MutableRows c, bool accumulate) {
  const FloatTag d;
  Vec sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = accumulate ? hn::LoadU(d, c.data + i * c.stride + j * kLanes) : hn::Zero(d);
    }
  }
  const float* row[kRows];
  HWY_UNROLL(8)
  for (int i = 0; i < kRows; ++i) row[i] = a.data + (kWalk == Walk::kAlongRows ? i * a.stride : i);
  const float* b_row = b.data;
  const float* a_column = a.data;
  for (int64_t s = 0; s < steps; ++s) {
    Vec right[kVectors];
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) right[j] = hn::LoadU(d, b_row + j * kLanes);
    HWY_UNROLL(8)
    for (int i = 0; i < kRows; ++i) {
      const Vec left = hn::Set(d, kWalk == Walk::kAlongRows ? row[i][s] : a_column[i]);
      HWY_UNROLL(8)
      for (int j = 0; j < kVectors; ++j) sum[i][j] = hn::MulAdd(left, right[j], sum[i][j]);
    }
    b_row += b.stride;
    a_column += a.stride;
  }
  HWY_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) hn::StoreU(sum[i][j], d, c.data + i * c.stride + j * kLanes);
  }
}

// kRows rows from `row` on.
template <int kRows, int kVectors, Walk kWalk>
HWY_INLINE void MultiplyRows(int64_t row, Broadcasts a, Rows b, int64_t steps, MutableRows c, bool accumulate) {
  a.data += kWalk == Walk::kAlongRows ? row * a.stride : row;
  c.data += row * c.stride;
  MultiplyTile<kRows, kVectors, kWalk>(a, b, steps, c, accumulate);
}

// All rows of one group of kVectors vectors, in tiles as high as the registers allow.
template <int kVectors, Walk kWalk>
HWY_NOINLINE void MultiplyColumns(int64_t num_rows, Broadcasts a, Rows b, int64_t steps, MutableRows c,
                                  bool accumulate) {
  int64_t i = 0;
  if constexpr (kTileRows == 8 && kVectors <= 3) {
    for (; i + 8 <= num_rows; i += 8) MultiplyRows<8, kVectors, kWalk>(i, a, b, steps, c, accumulate);
  }
  if constexpr (kVectors <= 3 || (kTileRows == 8 && kVectors == 4)) {
    for (; i + 4 <= num_rows; i += 4) MultiplyRows<4, kVectors, kWalk>(i, a, b, steps, c, accumulate);
  }
  if constexpr (kTileRows == 8 || kVectors <= 4) {
    for (; i + 2 <= num_rows; i += 2) MultiplyRows<2, kVectors, kWalk>(i, a, b, steps, c, accumulate);
  }
  for (; i < num_rows; ++i) MultiplyRows<1, kVectors, kWalk>(i, a, b, steps, c, accumulate);
}

// c is num_rows x (num_vectors * kLanes).
template <Walk kWalk>
HWY_INLINE void Multiply(int64_t num_rows, int64_t num_vectors, Broadcasts a, Rows b, int64_t steps, MutableRows c,
                         bool accumulate) {
  while (num_vectors > 0) {
    int64_t width = HWY_MIN(num_vectors, 3);
    // Few rows leave registers for more vectors, and need their independent chains.
    if (num_vectors >= 4 && num_rows <= 4) width = 4;
    if (kManyRegisters && num_vectors >= 8 && num_rows <= 2) width = 8;
    switch (width) {
      case 8: MultiplyColumns<8, kWalk>(num_rows, a, b, steps, c, accumulate); break;
      case 4: MultiplyColumns<4, kWalk>(num_rows, a, b, steps, c, accumulate); break;
      case 3: MultiplyColumns<3, kWalk>(num_rows, a, b, steps, c, accumulate); break;
      case 2: MultiplyColumns<2, kWalk>(num_rows, a, b, steps, c, accumulate); break;
      default: MultiplyColumns<1, kWalk>(num_rows, a, b, steps, c, accumulate); break;
    }
    num_vectors -= width;
    b.data += width * kLanes;
    c.data += width * kLanes;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_MULTIPLY_INL_H_
