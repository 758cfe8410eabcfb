// Owning tensors for tests, and comparisons that print the worst element.
#ifndef ATTEND_TESTS_SUPPORT_HEADS_TENSOR_H_
#define ATTEND_TESTS_SUPPORT_HEADS_TENSOR_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "core/tensor/heads_view.h"

namespace attend::testing {

// A dense [batch, heads, length, dim] tensor that owns its elements. T is float or std::uint8_t.
template <typename T>
struct HeadsTensor {
  std::int64_t batch = 1, heads = 1, length = 1, dim = 1;
  std::vector<T> elements;

  HeadsTensor(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d, T fill = T())
      : batch(b), heads(h), length(t), dim(d), elements(static_cast<std::size_t>(b * h * t * d), fill) {}
  // One batch entry with one head.
  HeadsTensor(std::int64_t t, std::int64_t d, std::vector<T> values) : length(t), dim(d), elements(std::move(values)) {}

  BasicHeadsView<const T> View() const { return SplitHeads<const T>(elements.data(), batch, heads, length, dim); }
  BasicHeadsView<T> MutableView() { return SplitHeads<T>(elements.data(), batch, heads, length, dim); }
  T& At(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d) {
    return elements[static_cast<std::size_t>(((b * heads + h) * length + t) * dim + d)];
  }
};

// Normally distributed elements, the same for the same seed on every machine.
inline HeadsTensor<float> RandomHeads(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d, unsigned seed) {
  HeadsTensor<float> tensor(b, h, t, d);
  std::mt19937 bits(seed);
  for (float& element : tensor.elements) {  // Irwin-Hall: the sum of 12 uniforms; std::normal_distribution may differ.
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(bits()) / 4294967296.0;
    element = static_cast<float>(sum);
  }
  return tensor;
}

// Succeeds when all elements are within `tolerance` of those expected (equal infinities and two NaNs are); names the
// worst one otherwise.
template <typename Actual, typename Expected>
::testing::AssertionResult AllNear(const Actual& actual, const Expected& expected, double tolerance) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure() << actual.size() << " elements, expected " << expected.size();
  }
  double worst_error = 0;
  std::size_t worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double a = actual[i], e = expected[i];
    if (a == e || (std::isnan(a) && std::isnan(e))) continue;
    const double error = std::abs(a - e);
    if (!(error <= worst_error)) worst = i, worst_error = std::isnan(error) ? INFINITY : error;
  }
  if (worst_error <= tolerance) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "element " << worst << " is " << actual[worst] << ", expected "
                                       << expected[worst] << ": off by " << worst_error << ", allowed " << tolerance;
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_HEADS_TENSOR_H_
