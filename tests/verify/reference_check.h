// Checks a result against the float64 reference, computed here from the same request.
#ifndef ATTEND_TESTS_VERIFY_REFERENCE_CHECK_H_
#define ATTEND_TESTS_VERIFY_REFERENCE_CHECK_H_

#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/requests/computation.h"
#include "tests/verify/comparison.h"

namespace attend::client {

// One comparison for each tensor of `outcome`. Top weights are held to the reference's weights, sorted; the keys that
// they belong to to the reference's weights of these keys. Partial results are merged in float64. REQUIRES: the server
// has answered `request` with `outcome`; every tensor of the request travels as `data`; ALiBi slopes and sinks are
// float32.
//
// Errors: INVALID_ARGUMENT when the reference's rules refuse a request that the server accepted; RESOURCE_EXHAUSTED
// when the reference, which stores all scores in float64, would need more than 4 GiB.
absl::StatusOr<std::vector<Comparison>> VerifyAgainstReference(const ComputationRequest& request,
                                                               const Outcome& outcome);

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_REFERENCE_CHECK_H_
