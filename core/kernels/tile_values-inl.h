// The sums over values of tile-inl.h for one row or two, by float multiply-adds: values of two keys then need not be
// put side by side for tiles, which takes longer than these rows do. Included for AVX-512 alone, with keys in lanes.
#ifndef ATTEND_CORE_KERNELS_TILE_VALUES_INL_H_
#define ATTEND_CORE_KERNELS_TILE_VALUES_INL_H_

#include "core/kernels/fast_keys-inl.h"
#include "core/kernels/tile-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// 32 floats, those of even places apart from those of odd ones.
struct EvenOdd {
  HWY_INLINE void Load(const float* from) {
    const __m512 low = _mm512_loadu_ps(from), high = _mm512_loadu_ps(from + kLanes);
    even.raw = _mm512_permutex2var_ps(low, _mm512_slli_epi32(Ascending(), 1), high);
    odd.raw =
        _mm512_permutex2var_ps(low, _mm512_add_epi32(_mm512_slli_epi32(Ascending(), 1), _mm512_set1_epi32(1)), high);
  }
  HWY_INLINE void Store(float* to) const {
    const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(even.raw, order, odd.raw));
    _mm512_storeu_ps(to + kLanes,
                     _mm512_permutex2var_ps(even.raw, _mm512_add_epi32(order, _mm512_set1_epi32(8)), odd.raw));
  }
  static HWY_INLINE __m512i Ascending() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
  HWY_INLINE void AddProducts(const EvenOdd& numbers, Vec weight) {
    even = hn::MulAdd(numbers.even, weight, even);
    odd = hn::MulAdd(numbers.odd, weight, odd);
  }
  HWY_INLINE void Add(const EvenOdd& other) { even = hn::Add(even, other.even), odd = hn::Add(odd, other.odd); }
  Vec even;
  Vec odd;
};

// Adds 32 * kUnits value dimensions from `v` on of 32 keys from `key` on to rows [row, row + kRows).
template <int kRows, int kUnits, class Ahead>
HWY_INLINE void AddUnits(const Block& block, const State& state, int64_t key, int64_t v, Ahead& ahead) {
  const int64_t stride = block.task.values.stride;
  const BFloat16* value = block.task.values.Row<BFloat16>(block.first + key) + v;
  const float* weights = block.scratch.scores + key;  // Rounded.
  EvenOdd chains[2][kRows][kUnits];
  HWY_UNROLL(8)
  for (int i = 0; i < 2 * kRows * kUnits; ++i) {
    chains[i / kUnits / kRows][i / kUnits % kRows][i % kUnits] = {hn::Zero(FloatTag()), hn::Zero(FloatTag())};
  }
  for (int64_t k = 0; k < kTileNumbers; k += 2) {
    ahead.template Request<2 * kUnits>();
    HWY_UNROLL(2)
    for (int i = 0; i < 2; ++i, value += stride) {
      HWY_UNROLL(4)
      for (int u = 0; u < kUnits; ++u) {
        const Pairs pairs = _mm512_loadu_si512(value + u * kTileNumbers);
        const EvenOdd numbers{FirstOf(pairs), SecondOf(pairs)};
        HWY_UNROLL(2)
        for (int r = 0; r < kRows; ++r) chains[i][r][u].AddProducts(numbers, Broadcast(weights[r * kKeyBlock + k + i]));
      }
    }
  }
  HWY_UNROLL(2)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int u = 0; u < kUnits; ++u) {
      float* output = state.output + r * state.stride + v + u * kTileNumbers;
      EvenOdd sum;
      sum.Load(output);
      chains[0][r][u].Add(chains[1][r][u]);
      sum.Add(chains[0][r][u]);
      sum.Store(output);
    }
  }
}

// All values of a whole block, for kRows rows. REQUIRES: SubnormalsAreZero; value_dim is a multiple of 32.
template <int kRows, class Ahead>
HWY_NOINLINE void AddValuesOfRows(const Block& block, const State& state, Ahead& ahead) {
  constexpr int kMost = 4 / kRows;
  for (int64_t key = 0; key < kKeyBlock; key += kTileNumbers) {
    int64_t v = 0;
    for (; v + kMost * kTileNumbers <= block.task.value_dim; v += kMost * kTileNumbers) {
      AddUnits<kRows, kMost>(block, state, key, v, ahead);
    }
    for (; v < block.task.value_dim; v += kTileNumbers) AddUnits<kRows, 1>(block, state, key, v, ahead);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES

#endif  // ATTEND_CORE_KERNELS_TILE_VALUES_INL_H_
