// Arithmetic on sizes: quotients and multiples rounded up, and products that may overflow.
//
// All functions are pure and may be called concurrently.
#ifndef ATTEND_CORE_BASE_ROUND_H_
#define ATTEND_CORE_BASE_ROUND_H_

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace attend {

// In bytes: a cache line, and the widest vector.
inline constexpr std::int64_t kCacheLine = 64;

// size / divisor, rounded up. REQUIRES: size >= 0, divisor > 0, and their sum fits.
template <typename T>
constexpr T CeilDiv(T size, T divisor) {
  return (size + divisor - 1) / divisor;
}

// The smallest multiple of `multiple` that is at least `size`. REQUIRES: as CeilDiv.
template <typename T>
constexpr T RoundUp(T size, T multiple) {
  return CeilDiv(size, multiple) * multiple;
}

// The product of `sizes`, or empty when it overflows or one of them is negative. A zero makes it 0 only when the
// factors before it did not overflow.
constexpr std::optional<std::int64_t> CheckedProduct(std::initializer_list<std::int64_t> sizes) {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(product, size, &product)) return std::nullopt;
  }
  return product;
}

}  // namespace attend

#endif  // ATTEND_CORE_BASE_ROUND_H_
