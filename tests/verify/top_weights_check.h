// Holds the largest attention weights of a result to all weights of the float64 reference.
//
// Which of two nearly equal keys comes first is a matter of rounding, so keys are held to the weights that they have
// and not to the reference's own order.
#ifndef ATTEND_TESTS_VERIFY_TOP_WEIGHTS_CHECK_H_
#define ATTEND_TESTS_VERIFY_TOP_WEIGHTS_CHECK_H_

#include <string>

#include "absl/types/span.h"
#include "client/lib/tensor.h"
#include "tests/verify/comparison.h"

namespace attend::client {

// Both are pure. `reference` is [rows, columns], where `got` is [.., k] with as many rows.

// Compares with each row's weights sorted, 0 behind the last. When every weight is within `bound`, so is the largest,
// the second, and so on.
Comparison CompareTopWeights(const std::string& against, const Tensor& got, absl::Span<const double> reference,
                             double bound);

// Compares the reference's weight of each key with the weight that belongs at its place, within twice the bound: both
// may be that far from the weight returned. A place without a key (-1) stands for weight 0. A key that does not exist
// or is listed twice in a row is an infinite error.
Comparison CompareTopIndices(const std::string& against, const Tensor& got, absl::Span<const double> reference,
                             double bound);

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_TOP_WEIGHTS_CHECK_H_
