// exp2, tanh and small matrix transposes in vector registers. Included once per instruction set.
//
// Every function is made of element-wise operations only, so an element's bits do not depend on its lane.
#include "hwy/highway.h"

#if defined(ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
#undef ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
#else
#define ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/kernels/kernel_table.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using std::int64_t;

using FloatTag = hn::ScalableTag<float>;
using Uint32Tag = hn::RebindToUnsigned<FloatTag>;
using Vec = hn::Vec<FloatTag>;
constexpr int64_t kLanes = HWY_LANES(float);
constexpr float kInfinity = std::numeric_limits<float>::infinity();

HWY_INLINE Vec Broadcast(float x) { return hn::Set(FloatTag(), x); }

// 2^x for x in [-infinity, 128): relative error below 3e-7, exactly 1 at 0, exactly 0 below -126 (no denormals, so no
// slow path in the hardware), NaN for NaN. 2^n comes from adding 1.5 * 2^23 + 127, which leaves n + 127 in the low
// bits; 2^f on [-1/2, 1/2] is a minimax polynomial of degree 5 with constant term 1.
HWY_INLINE Vec Exp2(Vec x) {
  const FloatTag d;
  const Uint32Tag du;
  const Vec magic = Broadcast(12583039.0f);
  const Vec t = hn::Add(x, magic);
  const Vec f = hn::Sub(x, hn::Sub(t, magic));
  Vec p = hn::MulAdd(Broadcast(0.00132647145f), f, Broadcast(0.00967150927f));
  p = hn::MulAdd(p, f, Broadcast(0.0555073358f));
  p = hn::MulAdd(p, f, Broadcast(0.240222424f));
  p = hn::MulAdd(p, f, Broadcast(0.693147004f));
  p = hn::MulAdd(p, f, Broadcast(1.0f));
  const Vec power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t)));
  return hn::IfThenZeroElse(hn::Lt(x, Broadcast(-126.0f)), hn::Mul(p, power));
}

// tanh(x) to about 2e-7 relative: an odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel.
HWY_INLINE Vec Tanh(Vec x) {
  const Vec magnitude = hn::Abs(x);
  const Vec x2 = hn::Mul(x, x);
  // Minimax of (tanh(x) - x) / x^3 in x^2 on [0, 0.625].
  Vec small = Broadcast(-0.00570498872745f);
  small = hn::MulAdd(small, x2, Broadcast(0.0206390887954f));
  small = hn::MulAdd(small, x2, Broadcast(-0.0537397155531f));
  small = hn::MulAdd(small, x2, Broadcast(0.133314422036f));
  small = hn::MulAdd(small, x2, Broadcast(-0.333332819422f));
  small = hn::MulAdd(hn::Mul(small, x2), x, x);
  // Beyond 10 the answer is 1 in float32. Min keeps a NaN that is its second operand on x86; the blend below does the
  // rest elsewhere.
  const Vec e = Exp2(hn::Mul(hn::Min(Broadcast(10.0f), magnitude), Broadcast(2 * kLog2E)));
  const Vec large = hn::Sub(Broadcast(1.0f), hn::Div(Broadcast(2.0f), hn::Add(e, Broadcast(1.0f))));
  const Vec tanh = hn::IfThenElse(hn::Lt(magnitude, Broadcast(0.625f)), small, hn::CopySign(large, x));
  return hn::IfThenElse(hn::Eq(x, x), tanh, x);
}

// m, or 0 where m is -infinity: something to subtract from scores without making NaN of -infinity.
HWY_INLINE Vec FiniteMaximum(Vec m) { return hn::IfThenZeroElse(hn::Eq(m, Broadcast(-kInfinity)), m); }

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void Transpose(Vec (&)[1]) {}
#else
// Transposes each 4 x 4 block of 128-bit pieces of four vectors.
HWY_INLINE void TransposeBlocks(Vec& a, Vec& b, Vec& c, Vec& d) {
  const FloatTag df;
  const hn::Repartition<double, FloatTag> dd;
  const auto ab_low = hn::BitCast(dd, hn::InterleaveLower(df, a, b));
  const auto ab_high = hn::BitCast(dd, hn::InterleaveUpper(df, a, b));
  const auto cd_low = hn::BitCast(dd, hn::InterleaveLower(df, c, d));
  const auto cd_high = hn::BitCast(dd, hn::InterleaveUpper(df, c, d));
  a = hn::BitCast(df, hn::InterleaveLower(dd, ab_low, cd_low));
  b = hn::BitCast(df, hn::InterleaveUpper(dd, ab_low, cd_low));
  c = hn::BitCast(df, hn::InterleaveLower(dd, ab_high, cd_high));
  d = hn::BitCast(df, hn::InterleaveUpper(dd, ab_high, cd_high));
}

HWY_INLINE void Transpose(Vec (&v)[4]) { TransposeBlocks(v[0], v[1], v[2], v[3]); }

#if HWY_CAP_GE256
HWY_INLINE void SwapHalves(Vec& low, Vec& high) {
  const FloatTag d;
  const Vec l = hn::ConcatLowerLower(d, high, low);
  high = hn::ConcatUpperUpper(d, high, low);
  low = l;
}

HWY_INLINE void Transpose(Vec (&v)[8]) {
  TransposeBlocks(v[0], v[1], v[2], v[3]);
  TransposeBlocks(v[4], v[5], v[6], v[7]);
  for (int i = 0; i < 4; ++i) SwapHalves(v[i], v[i + 4]);
}
#endif

#if HWY_CAP_GE512
// Makes [a0 b0 a2 b2] and [a1 b1 a3 b3] of 128-bit blocks [a0 a1 a2 a3] and [b0 b1 b2 b3].
HWY_INLINE void SwapOddBlocks(Vec& a, Vec& b) {
  const Vec even = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a);
  b = hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a));
  a = even;
}

HWY_INLINE void Transpose(Vec (&v)[16]) {
  for (int i = 0; i < 16; i += 4) TransposeBlocks(v[i], v[i + 1], v[i + 2], v[i + 3]);
  for (int i = 0; i < 4; ++i) {
    SwapOddBlocks(v[i], v[i + 4]);
    SwapOddBlocks(v[i + 8], v[i + 12]);
    SwapHalves(v[i], v[i + 8]);
    SwapHalves(v[i + 4], v[i + 12]);
  }
}
#endif
#endif  // HWY_TARGET == HWY_SCALAR

// tile[i] = element c + i of rows 0 to kLanes - 1: the transpose of a square in memory. Where vectors are wide, loading
// pieces of 128 bits to where they belong leaves half of the shuffles.
template <class Row>
HWY_INLINE void LoadTransposed(const Row& row, int64_t c, Vec (&tile)[kLanes]) {
#if HWY_TARGET == HWY_AVX3
  // Rows i and i + 8 side by side, 8 columns of each; then 8 x 8 within halves.
  HWY_UNROLL(2)
  for (int g = 0; g < 2; ++g) {
    Vec half[8];
    HWY_UNROLL(8)
    for (int i = 0; i < 8; ++i) {
      const __m512 low = _mm512_castps256_ps512(_mm256_loadu_ps(row(i) + c + 8 * g));
      half[i].raw = _mm512_insertf32x8(low, _mm256_loadu_ps(row(i + 8) + c + 8 * g), 1);
    }
    TransposeBlocks(half[0], half[1], half[2], half[3]);
    TransposeBlocks(half[4], half[5], half[6], half[7]);
    HWY_UNROLL(4)
    for (int i = 0; i < 4; ++i) {
      SwapOddBlocks(half[i], half[i + 4]);
      tile[8 * g + i] = half[i];
      tile[8 * g + i + 4] = half[i + 4];
    }
  }
#elif HWY_TARGET == HWY_AVX2
  const hn::Half<FloatTag> half;
  HWY_UNROLL(2)
  for (int g = 0; g < 2; ++g) {
    HWY_UNROLL(4)
    for (int i = 0; i < 4; ++i) {
      tile[4 * g + i] =
          hn::Combine(FloatTag(), hn::LoadU(half, row(i + 4) + c + 4 * g), hn::LoadU(half, row(i) + c + 4 * g));
    }
    TransposeBlocks(tile[4 * g], tile[4 * g + 1], tile[4 * g + 2], tile[4 * g + 3]);
  }
#else
  for (int64_t r = 0; r < kLanes; ++r) tile[r] = hn::LoadU(FloatTag(), row(r) + c);
  Transpose(tile);
#endif
}

// The first `count` of kLanes elements at `from`; zeros behind. Reads nothing beyond them.
HWY_INLINE Vec LoadFirst(const float* from, int64_t count) {
  if (count >= kLanes) return hn::LoadU(FloatTag(), from);
  HWY_ALIGN float padded[kLanes] = {};
  if (count > 0) std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(float));
  return hn::Load(FloatTag(), padded);
}

// Writes the first `count` elements of v and nothing beyond.
HWY_INLINE void StoreFirst(Vec v, float* to, int64_t count) {
  if (count >= kLanes) {
    hn::StoreU(v, FloatTag(), to);
    return;
  }
  HWY_ALIGN float padded[kLanes];
  hn::Store(v, FloatTag(), padded);
  if (count > 0) std::memcpy(to, padded, static_cast<size_t>(count) * sizeof(float));
}

// to[c * to_stride + r] = factor * row(r)[c] for c in [0, columns), r in [0, kLanes). Rows from num_rows on, for which
// row() is not called, count as zeros.
template <class Row>
HWY_INLINE void PackTransposed(const Row& row, int64_t num_rows, int64_t columns, float factor, float* to,
                               int64_t to_stride) {
  const FloatTag d;
  const Vec scale = Broadcast(factor);
  for (int64_t c = 0; c < columns; c += kLanes) {
    const int64_t width = HWY_MIN(kLanes, columns - c);
    Vec tile[kLanes];
    if (width == kLanes && num_rows >= kLanes) {
      LoadTransposed(row, c, tile);
    } else {
      for (int64_t r = 0; r < kLanes; ++r) tile[r] = r < num_rows ? LoadFirst(row(r) + c, width) : hn::Zero(d);
      Transpose(tile);
    }
    for (int64_t i = 0; i < width; ++i) hn::StoreU(hn::Mul(tile[i], scale), d, to + (c + i) * to_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
