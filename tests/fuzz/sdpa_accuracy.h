// Holds results to the float64 reference, as closely as the scores can be known in the problem's arithmetic.
#ifndef ATTEND_TESTS_FUZZ_SDPA_ACCURACY_H_
#define ATTEND_TESTS_FUZZ_SDPA_ACCURACY_H_

#include "core/problem/sdpa_problem.h"
#include "core/reference/reference.h"
#include "tests/fuzz/sdpa_results.h"

namespace attend::testing {

// Throws Failure with the first element that is off. Outputs may be off by `allowance` of the largest value beyond what
// the arithmetic explains. REQUIRES: the problem is one sequence, and FLOAT32 or FLOAT64.
void CheckAgainstReference(const SdpaProblem& problem, const Results& actual, const ReferenceResult& expected,
                           double allowance = 0);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_FUZZ_SDPA_ACCURACY_H_
