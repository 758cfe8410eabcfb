// How far a result is from what it should be.
#ifndef ATTEND_TESTS_VERIFY_COMPARISON_H_
#define ATTEND_TESTS_VERIFY_COMPARISON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "client/lib/tensor.h"

namespace attend::client {

// The largest difference between a tensor and what was expected, and the bound that attend promises there.
struct Comparison {
  std::string name;     // The tensor's.
  std::string against;  // What it was compared with.
  double error = 0;     // The largest absolute difference; infinite where only one side is NaN or infinite.
  double bound = 0;
  std::vector<std::int64_t> index;  // Where the largest difference is.
  double got = 0;                   // The two values there.
  double expected = 0;

  bool ok() const { return error <= bound; }
};

// Compares element by element; equal infinities and two NaNs are no difference. A number of 16 bits may differ by its
// unit in the last place more than `bound`, and be infinite where what was expected is beyond its range. What is
// reported is the error that is largest by its bound. REQUIRES: as many values expected as `got` has elements.
Comparison Compare(const std::string& name, const std::string& against, const Tensor& got,
                   absl::Span<const double> expected, double bound);

// `output: largest error 1.2e-07 at [3, 17] (0.25 against 0.25), bound 3.4e-06: ok (against the float64 reference)`
std::string Describe(const Comparison& comparison);

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_COMPARISON_H_
