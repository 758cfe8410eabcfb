// The matrix micro-kernel of multiply-inl.h for pairs of BFLOAT16 numbers:
//
//   c[i][lane] = sum over s ascending of a(i, s) . b[s][lane]
//
// where a(i, s) and b[s][lane] are pairs and . adds the products of both their numbers to the sum, in the order and
// with the rounding of the instruction VDPBF16PS, which takes and gives subnormal numbers as 0. Included for AVX-512
// alone.
#ifndef ATTEND_CORE_KERNELS_DOT_INL_H_
#define ATTEND_CORE_KERNELS_DOT_INL_H_

#include <cstring>

#include "core/kernels/softmax-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// Two BFLOAT16 numbers in each lane of 32 bits, the first in its lower half.
using Pairs = __m512i;

HWY_INLINE Vec AddDots(Pairs a, Pairs b, Vec sum) {
  return Vec{_mm512_dpbf16_ps(sum.raw, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b))};
}

// A pair in memory, at the alignment of its numbers, in every lane.
HWY_INLINE Pairs BroadcastPair(const void* pair) {
  std::int32_t bits;
  std::memcpy(&bits, pair, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

// Two floats that are BFLOAT16 numbers, as a pair.
HWY_INLINE std::uint32_t PairOfFloats(const float* numbers) {
  std::uint32_t bits[2];
  std::memcpy(bits, numbers, sizeof(bits));
  return bits[0] >> 16 | (bits[1] & 0xffff0000u);
}

// Lane by lane, rounded to nearest even.
HWY_INLINE Pairs RoundToPairs(Vec first, Vec second) {
  alignas(64) static constexpr std::uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const auto halves = reinterpret_cast<Pairs>(_mm512_cvtne2ps_pbh(second.raw, first.raw));
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), halves);
}

// The numbers of pairs as floats.
HWY_INLINE Vec FirstOf(Pairs pairs) { return Vec{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))}; }
HWY_INLINE Vec SecondOf(Pairs pairs) {
  return Vec{_mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}

// Pair (i, s) is at data + i * row + s * step, in bytes.
struct PairBroadcasts {
  const char* data;
  int64_t row;
  int64_t step;
};
struct PairRows {
  const std::uint32_t* data;
  int64_t stride;
};
// Where sums begin: at 0, or at what c holds.
enum class From { kZero, kSums };

// c = (sum) * factor.
template <int kRows, int kVectors, From kFrom>
HWY_INLINE void DotTile(PairBroadcasts a, PairRows b, int64_t steps, MutableRows c, float factor) {
  const FloatTag d;
  Vec sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = kFrom == From::kSums ? hn::LoadU(d, c.data + i * c.stride + j * kLanes) : hn::Zero(d);
    }
  }
  const char* row[kRows];
  HWY_UNROLL(8)
  for (int i = 0; i < kRows; ++i) row[i] = a.data + i * a.row;
  const std::uint32_t* b_row = b.data;
  for (int64_t s = 0; s < steps; ++s, b_row += b.stride) {
    Pairs right[kVectors];
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) right[j] = _mm512_loadu_si512(b_row + j * kLanes);
    HWY_UNROLL(8)
    for (int i = 0; i < kRows; ++i) {
      const Pairs left = BroadcastPair(row[i] + s * a.step);
      HWY_UNROLL(8)
      for (int j = 0; j < kVectors; ++j) sum[i][j] = AddDots(left, right[j], sum[i][j]);
    }
  }
  HWY_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) {
      const Vec result = kFrom == From::kZero ? hn::Mul(sum[i][j], Broadcast(factor)) : sum[i][j];
      hn::StoreU(result, d, c.data + i * c.stride + j * kLanes);
    }
  }
}

template <int kVectors, From kFrom>
HWY_NOINLINE void DotColumns(int64_t num_rows, PairBroadcasts a, PairRows b, int64_t steps, MutableRows c,
                             float factor) {
  const auto add = [&](auto rows) __attribute__((always_inline)) {
    DotTile<decltype(rows)::value, kVectors, kFrom>(a, b, steps, c, factor);
    a.data += decltype(rows)::value * a.row;
    c.data += decltype(rows)::value * c.stride;
    num_rows -= decltype(rows)::value;
  };
  while (num_rows >= 8) add(std::integral_constant<int, 8>());
  if (num_rows >= 4) add(std::integral_constant<int, 4>());
  if (num_rows >= 2) add(std::integral_constant<int, 2>());
  if (num_rows >= 1) add(std::integral_constant<int, 1>());
}

// c is num_rows x (num_vectors * kLanes), num_vectors at most 3. From zero, every sum is multiplied by `factor` at its
// end.
template <From kFrom>
HWY_INLINE void Dot(int64_t num_rows, int64_t num_vectors, PairBroadcasts a, PairRows b, int64_t steps, MutableRows c,
                    float factor = 1) {
  switch (num_vectors) {
    case 3: DotColumns<3, kFrom>(num_rows, a, b, steps, c, factor); break;
    case 2: DotColumns<2, kFrom>(num_rows, a, b, steps, c, factor); break;
    default: DotColumns<1, kFrom>(num_rows, a, b, steps, c, factor); break;
  }
}

// Puts the values of keys 2i and 2i + 1 side by side. `begin` is even; a value that is missing at the end is 0.
inline void PackValuePairs(const AttentionTask& task, int64_t begin, int64_t end, std::uint32_t* to,
                           int64_t to_stride) {
  const BFloat16 zeros[kLanes] = {};
  const auto load = [&](const BFloat16* from, int64_t count) __attribute__((always_inline)) {
    const __m256i halves = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(LowBits(HWY_MIN(count, kLanes))), from);
    return _mm512_cvtepu16_epi32(halves);
  };
  for (int64_t j = begin; j < end; j += 2, to += to_stride) {
    const BFloat16* first = task.values.Row<BFloat16>(j);
    const BFloat16* second = j + 1 < end ? task.values.Row<BFloat16>(j + 1) : nullptr;
    for (int64_t v = 0; v < task.value_dim; v += kLanes) {
      const int64_t count = task.value_dim - v;
      const Pairs low = load(first + v, count);
      const Pairs high = load(second == nullptr ? zeros : second + v, count);
      _mm512_storeu_si512(to + v, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES

#endif  // ATTEND_CORE_KERNELS_DOT_INL_H_
