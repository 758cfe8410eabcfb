// Says that a result holds NaN, which a file or a table of many numbers hides.
#ifndef ATTEND_CLIENT_CLI_RESULTS_NAN_WARNING_H_
#define ATTEND_CLIENT_CLI_RESULTS_NAN_WARNING_H_

#include <string>

#include "client/lib/tensor.h"

namespace attend::client {

// A sentence that says how many rows of `entry` (along its last axis; for log_sum_exp, how many numbers) hold NaN;
// empty when there is none. Pure.
std::string NanWarning(const NamedTensor& entry);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_NAN_WARNING_H_
