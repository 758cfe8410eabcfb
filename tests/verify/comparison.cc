#include "tests/verify/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace attend::client {
namespace {

// What a number of 16 bits adds to the bound: its unit in the last place, as it is rounded once. Larger types add none.
double UnitInLastPlace(ElementType type, double value) {
  if (type != ElementType::kFloat16 && type != ElementType::kBFloat16) return 0;
  const bool is_half = type == ElementType::kFloat16;
  const int smallest = is_half ? -14 : -126;  // The exponent of the smallest normal number.
  const int exponent = value == 0 || !std::isfinite(value) ? smallest : std::max(std::ilogb(value), smallest);
  return std::ldexp(1, exponent - (is_half ? 10 : 7));
}

// Whether a number this large rightly becomes infinite in 16 bits.
bool MayOverflow(ElementType type, double size) {
  if (type == ElementType::kFloat16) return size >= 65504;
  return type == ElementType::kBFloat16 && size >= std::ldexp(255, 120);
}

// The difference of two values; none where both are NaN or the same infinity.
double Difference(double got, double expected) {
  if (got == expected || (std::isnan(got) && std::isnan(expected))) return 0;
  const double difference = std::abs(got - expected);
  return std::isfinite(difference) ? difference : std::numeric_limits<double>::infinity();
}

std::vector<std::int64_t> Unravel(std::size_t position, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = static_cast<std::int64_t>(position % static_cast<std::size_t>(shape[axis]));
    position /= static_cast<std::size_t>(shape[axis]);
  }
  return index;
}

}  // namespace

Comparison Compare(const std::string& name, const std::string& against, const Tensor& got,
                   absl::Span<const double> expected, double bound) {
  Comparison comparison{name, against, 0, bound, {}, 0, 0};
  const std::vector<double> values = got.ToDoubles();
  double worst = -1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool overflows = std::isinf(values[i]) && std::signbit(values[i]) == std::signbit(expected[i]) &&
                           MayOverflow(got.type(), std::abs(expected[i]) + bound);
    const double error = overflows ? 0 : Difference(values[i], expected[i]);
    const double allowed = bound + UnitInLastPlace(got.type(), expected[i]);
    const double ratio = error == 0 ? 0 : error / allowed;
    if (ratio <= worst) continue;
    worst = ratio;
    comparison = {name, against, error, allowed, Unravel(i, got.shape()), values[i], expected[i]};
  }
  return comparison;
}

std::string Describe(const Comparison& comparison) {
  return absl::StrFormat("%s: largest error %.3g at %s (%.9g against %.9g), bound %.3g: %s (against %s)",
                         comparison.name, comparison.error, ShapeString(comparison.index), comparison.got,
                         comparison.expected, comparison.bound, comparison.ok() ? "ok" : "TOO LARGE",
                         comparison.against);
}

}  // namespace attend::client
