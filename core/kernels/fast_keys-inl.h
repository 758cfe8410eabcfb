// What the fast kernels with keys in lanes share, whatever multiplies: weights as pairs. Included for AVX-512 alone.
#ifndef ATTEND_CORE_KERNELS_FAST_KEYS_INL_H_
#define ATTEND_CORE_KERNELS_FAST_KEYS_INL_H_

#include "core/kernels/dot-inl.h"
#include "core/kernels/key_softmax-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// The weights of row r as pairs: keys 2s and 2s + 1. They lie where keys were.
constexpr int64_t kPairsPerRow = kKeyBlock / 2;
inline std::uint32_t* WeightPairs(const Block& block, int64_t r) {
  return reinterpret_cast<std::uint32_t*>(block.scratch.keys) + r * kPairsPerRow;
}

// Rounds weights: as pairs, and in place.
inline void RoundWeights(const Block& block) {
  for (int64_t r = 0; r < block.panel.num_rows; ++r) {
    float* weights = block.scratch.scores + r * kKeyBlock;
    auto* to = reinterpret_cast<__m256i*>(WeightPairs(block, r));
    for (int64_t k = 0; k < block.count; k += kLanes, ++to) {
      const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_load_ps(weights + k)));
      _mm256_storeu_si256(to, rounded);
      _mm512_store_si512(weights + k, _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES

#endif  // ATTEND_CORE_KERNELS_FAST_KEYS_INL_H_
