// Transposes in vector registers: columns of rows in memory, of any type of number, become vectors of floats. Included
// once per instruction set.
#include "core/kernels/convert-inl.h"

#if defined(ATTEND_CORE_KERNELS_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_TRANSPOSE_INL_H_
#undef ATTEND_CORE_KERNELS_TRANSPOSE_INL_H_
#else
#define ATTEND_CORE_KERNELS_TRANSPOSE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {

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

// How many columns LoadColumns takes at a time. Where vectors are wide, loading two pieces of rows to where they belong
// leaves three quarters of a transpose's shuffles.
constexpr int64_t kColumns = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 ? kLanes / 2 : kLanes;

// Transposes what LoadColumns has loaded.
HWY_INLINE void TransposeColumns(Vec (&v)[kColumns]) {
#if HWY_TARGET == HWY_AVX3
  // Rows i and i + 4 are side by side, 8 columns of each; and behind them rows i + 8 and i + 12.
  TransposeBlocks(v[0], v[1], v[2], v[3]);
  TransposeBlocks(v[4], v[5], v[6], v[7]);
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    const __m512 upper = _mm512_shuffle_f32x4(v[i].raw, v[i + 4].raw, _MM_SHUFFLE(3, 1, 3, 1));
    v[i].raw = _mm512_shuffle_f32x4(v[i].raw, v[i + 4].raw, _MM_SHUFFLE(2, 0, 2, 0));
    v[i + 4].raw = upper;
  }
#elif HWY_TARGET == HWY_AVX2
  TransposeBlocks(v[0], v[1], v[2], v[3]);
#else
  Transpose(v);
#endif
}

// kColumns numbers of each of two rows, side by side; or of one row where vectors are narrow.
HWY_INLINE Vec LoadSideBySide(const float* row, const float* other) {
#if HWY_TARGET == HWY_AVX3
  Vec both;
  both.raw = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(row)), _mm256_loadu_ps(other), 1);
  return both;
#elif HWY_TARGET == HWY_AVX2
  const hn::Half<FloatTag> half;
  return hn::Combine(FloatTag(), hn::LoadU(half, other), hn::LoadU(half, row));
#else
  (void)other;
  return hn::LoadU(FloatTag(), row);
#endif
}

// The same for numbers of 16 bits.
template <Vec kWiden(Halves), typename Half>
HWY_INLINE Vec WidenSideBySide(const Half* row, const Half* other) {
#if HWY_TARGET == HWY_AVX3
  const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(other));
  return kWiden(Halves{_mm256_inserti128_si256(low, high, 1)});
#elif HWY_TARGET == HWY_AVX2
  const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row));
  const __m128i high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(other));
  return kWiden(Halves{_mm_unpacklo_epi64(low, high)});
#else
  (void)other;
  return LoadWide(row);
#endif
}
HWY_INLINE Vec LoadSideBySide(const Float16* row, const Float16* other) {
  return WidenSideBySide<WidenFloat16>(row, other);
}
HWY_INLINE Vec LoadSideBySide(const BFloat16* row, const BFloat16* other) {
  return WidenSideBySide<WidenBFloat16>(row, other);
}

HWY_INLINE Vec LoadSideBySide(const std::int8_t* row, const std::int8_t* other) {
#if HWY_TARGET == HWY_AVX3
  const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row));
  const __m128i high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(other));
  return WidenInt8(hn::Vec<Int8Tag>{_mm_unpacklo_epi64(low, high)});
#elif HWY_TARGET == HWY_AVX2
  HWY_ALIGN std::int8_t both[kLanes];
  std::memcpy(both, row, kLanes / 2);
  std::memcpy(both + kLanes / 2, other, kLanes / 2);
  return LoadWide(both);
#else
  (void)other;
  return LoadWide(row);
#endif
}

// The row in the lower half of a vector before TransposeColumns; the one kHalfRows further is in the upper half.
constexpr int64_t kHalfRows = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 ? 4 : 0;
constexpr int64_t LowerRow(int64_t i) { return HWY_TARGET == HWY_AVX3 && i >= 4 ? i + 4 : i; }

// tile[i] = element c + i of rows 0 to kLanes - 1, widened.
template <class Row>
HWY_INLINE void LoadColumns(const Row& row, int64_t c, Vec (&tile)[kColumns]) {
  HWY_UNROLL(16)
  for (int64_t i = 0; i < kColumns; ++i) {
    tile[i] = LoadSideBySide(row(LowerRow(i)) + c, row(LowerRow(i) + kHalfRows) + c);
  }
  TransposeColumns(tile);
}

#if HWY_TARGET == HWY_AVX3
// LoadColumns of the columns from c on and of the next, which are one line of the cache: each line is read once, also
// where the rows share too few places of the first-level cache to be there a second time.
template <class Row>
HWY_INLINE void LoadLines(const Row& row, int64_t c, Vec (&low)[kColumns], Vec (&high)[kColumns]) {
  HWY_UNROLL(8)
  for (int64_t i = 0; i < kColumns; ++i) {
    const __m512 a = _mm512_loadu_ps(row(LowerRow(i)) + c), b = _mm512_loadu_ps(row(LowerRow(i) + kHalfRows) + c);
    low[i].raw = _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(1, 0, 1, 0));
    high[i].raw = _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 2, 3, 2));
  }
  TransposeColumns(low);
  TransposeColumns(high);
}
#endif

// tile[i] = element c + i of rows 0 to kLanes - 1: the transpose of a square in memory.
template <class Row>
HWY_INLINE void LoadTransposed(const Row& row, int64_t c, Vec (&tile)[kLanes]) {
  HWY_UNROLL(2)
  for (int64_t g = 0; g < kLanes; g += kColumns) {
    Vec columns[kColumns];
    LoadColumns(row, c + g, columns);
    HWY_UNROLL(16)
    for (int64_t i = 0; i < kColumns; ++i) tile[g + i] = columns[i];
  }
}

// to[c * to_stride + r] = scale[r] * row(r)[c] for c in [0, columns), r in [0, kLanes). Rows from num_rows on, for
// which row() is not called, count as zeros.
template <class Row>
HWY_INLINE void PackTransposed(const Row& row, int64_t num_rows, int64_t columns, Vec scale, float* to,
                               int64_t to_stride) {
  const FloatTag d;
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

#endif  // ATTEND_CORE_KERNELS_TRANSPOSE_INL_H_
