// The limits of every problem. A server's flags can only lower them.
#ifndef ATTEND_CORE_BASE_LIMITS_H_
#define ATTEND_CORE_BASE_LIMITS_H_

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "core/base/round.h"

namespace attend {

// The most elements that any tensor of a problem may have. Its size in bytes, at up to 8 bytes an element, and every
// index into it are then far from overflowing int64.
inline constexpr std::int64_t kMaxTensorElements = std::int64_t{1} << 59;

// The most query heads of a layer.
inline constexpr std::int64_t kMaxHeads = 1024;

// The most of a row's attention weights that may be listed as its largest.
inline constexpr std::int64_t kMaxTopK = 1 << 20;

// The largest position of a first token, for rotary embeddings.
inline constexpr std::int64_t kMaxPositionOffset = std::int64_t{1} << 40;

// The largest magnitude of a rotary embedding's frequency: 2^64 radians per position.
inline constexpr double kMaxRotaryFrequency = 18446744073709551616.0;

// A problem of fewer floating-point operations is computed by one thread: waking another takes about as long.
inline constexpr double kMinParallelFlops = 4e6;

// Whether a tensor with these axes stays within kMaxTensorElements. Pure; may be called concurrently.
constexpr bool IsTensorSize(std::initializer_list<std::int64_t> axes) {
  const std::optional<std::int64_t> elements = CheckedProduct(axes);
  return elements.has_value() && *elements <= kMaxTensorElements;
}

// Whether query heads can share key/value heads evenly: `kv_heads` is at least 1 and divides `heads`.
constexpr bool HeadsDivide(std::int64_t heads, std::int64_t kv_heads) { return kv_heads >= 1 && heads % kv_heads == 0; }

}  // namespace attend

#endif  // ATTEND_CORE_BASE_LIMITS_H_
