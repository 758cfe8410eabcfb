// How far an answer is from what it should be.
#ifndef ATTEND_CLIENT_CLI_COMPARISON_H_
#define ATTEND_CLIENT_CLI_COMPARISON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cli/computation.h"
#include "client/lib/tensor.h"

namespace attend::client {

// The largest difference between a tensor and what was expected, and the bound that attend promises for it.
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

// Compares element by element; equal infinities and two NaNs are no difference. REQUIRES: as many values expected as
// `got` has elements.
Comparison Compare(const std::string& name, const std::string& against, const Tensor& got,
                   absl::Span<const double> expected, double bound);

// What the bounds depend on: sizes of what is added up, computed in float64 from the request. u = 2^-24 is half a unit
// in the last place of 1.
struct ErrorScale {
  double max_value = 0;            // max|value|, of the projected value.
  double output_gain = 1;          // By how much an output projection enlarges errors: its largest sum |w| of a row.
  double output_rounding = 0;      // n u (sum |w| |a| + |bias|): the output projection's own rounding.
  double projection_rounding = 0;  // The same of the query, key and value projections, the largest of them.
  double score_rounding =
      0;  // (E + 8) u times the sizes that meet in a score, and what the projections' rounding adds.
};

// REQUIRES: the server has accepted the request (its shapes agree).
ErrorScale ComputeErrorScale(const ComputationRequest& request);

// The bound of the tensor called `name`. attend promises float32 results within 2e-6 * max|value| + 1e-6 of a float64
// computation. Attention weights are the output for a value of zeros and ones. An output projection passes the error on
// and adds its rounding; projections and scores by themselves are sums, bounded by their rounding.
double ErrorBound(const std::string& name, const ErrorScale& scale);

// `output: largest error 1.2e-07 at [3, 17] (0.25 against 0.25), bound 3.4e-06: ok (against the float64 reference)`
std::string Describe(const Comparison& comparison);

// An expected tensor, as in `--expect file.safetensors:output_f64` or `--expect attention_weights=weights.npy`.
struct Expectation {
  std::string name;    // Of the returned tensor; `output` unless given.
  std::string source;  // As TensorSource.

  // Errors: INVALID_ARGUMENT for a name that no returned tensor has.
  static absl::StatusOr<Expectation> Parse(const std::string& text);
};

// Compares the tensor that `expectation` names. Errors: those of loading the file; INVALID_ARGUMENT when shapes differ.
absl::StatusOr<Comparison> CompareExpected(const Expectation& expectation, const Outcome& outcome,
                                           const ErrorScale& scale);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMPARISON_H_
