// Merging of partial results in float64.
#ifndef ATTEND_TESTS_VERIFY_MERGE_REFERENCE_H_
#define ATTEND_TESTS_VERIFY_MERGE_REFERENCE_H_

#include "attend/v1/attention_service.pb.h"
#include "core/reference/reference.h"

namespace attend::client {

// Merges output and log-sum-exp of `result` with `partials`: outputs are weighted by exp(log_sum_exp), and a part's row
// with log-sum-exp -infinity is not looked at. Pure but for `result`. REQUIRES: the server has accepted the parts with
// the request that `result` is of, and they travel as `data`.
void MergeReference(const v1::PartialAttention& partials, ReferenceResult* result);

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_MERGE_REFERENCE_H_
