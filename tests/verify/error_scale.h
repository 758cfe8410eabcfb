// The error bounds that attend promises, for one request.
#ifndef ATTEND_TESTS_VERIFY_ERROR_SCALE_H_
#define ATTEND_TESTS_VERIFY_ERROR_SCALE_H_

#include <string>

#include "client/cli/requests/computation.h"

namespace attend::client {

// What the bounds depend on: sizes of what is added up, computed in float64 from the request. u is half a unit in the
// last place of 1 in the type of the arithmetic: 2^-24, or 2^-53 for float64.
struct ErrorScale {
  bool is_double = false;          // The arithmetic.
  bool is_merged = false;          // Partial results are merged.
  bool is_fast = false;            // PRECISION_FAST may round weights to BFLOAT16.
  double max_value = 0;            // max|value|, of the projected value, and of partial results.
  double output_gain = 1;          // By how much an output projection enlarges errors: its largest sum |w| of a row.
  double output_rounding = 0;      // n u (sum |w| |a| + |bias|): the output projection's own rounding.
  double projection_rounding = 0;  // The same of the query, key and value projections, the largest of them.
  double score_rounding = 0;       // (E + 8) u times the sizes that meet in a score, and what the projections add.
  // By how much scores move where PRECISION_FAST rounds a layer's queries and keys to BFLOAT16, beyond score_rounding.
  double rounded_scores = 0;
};

// The weights of a layer that is called by name are not here: its values are taken to be as large as the context.
//
// REQUIRES: the server has accepted the request (its shapes agree).
ErrorScale ComputeErrorScale(const ComputationRequest& request);

// The bound of the tensor called `name` before any rounding to 16 bits. attend promises float32 results within
// 2e-6 * max|value| + 1e-6 of a float64 computation, and float64 results within 1e-12 * max|value|. Attention weights
// are the output for a value of zeros and ones. PRECISION_FAST may be off by 2^-8 * max|value| for BFLOAT16 tensors,
// before the output's own rounding; its weights and scores are float32's. Of a layer it also rounds queries, keys,
// values and what the output projection reads to BFLOAT16: 2^-8 of each. An output projection passes the error on and
// adds its rounding; projections and scores by themselves are sums, bounded by their rounding (twice for float64, as
// what they are compared with rounds as well). Merging weighs results by exp(log_sum_exp), whose error of 1e-5 moves an
// output by at most half of that.
double ErrorBound(const std::string& name, const ErrorScale& scale);

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_ERROR_SCALE_H_
