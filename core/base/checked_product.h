// Products of sizes that come from outside.
#ifndef ATTEND_CORE_BASE_CHECKED_PRODUCT_H_
#define ATTEND_CORE_BASE_CHECKED_PRODUCT_H_

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace attend {

// The most elements that any tensor of a problem may have: its size in bytes, at up to 8 bytes an element, and every
// index into it are then far from overflowing int64.
inline constexpr std::int64_t kMaxTensorElements = std::int64_t{1} << 59;

// The product of `sizes`, or empty when it overflows or one of them is negative. A zero makes it 0 only when the
// factors before it did not overflow. Pure; may be called concurrently.
constexpr std::optional<std::int64_t> CheckedProduct(std::initializer_list<std::int64_t> sizes) {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(product, size, &product)) return std::nullopt;
  }
  return product;
}

// Whether a tensor with these axes stays within kMaxTensorElements.
constexpr bool IsTensorSize(std::initializer_list<std::int64_t> axes) {
  const std::optional<std::int64_t> elements = CheckedProduct(axes);
  return elements.has_value() && *elements <= kMaxTensorElements;
}

}  // namespace attend

#endif  // ATTEND_CORE_BASE_CHECKED_PRODUCT_H_
