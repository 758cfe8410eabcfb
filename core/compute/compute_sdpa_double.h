// FLOAT64 attention: compute.h's ComputeSdpa for problems whose arithmetic is double.
#ifndef ATTEND_CORE_COMPUTE_COMPUTE_SDPA_DOUBLE_H_
#define ATTEND_CORE_COMPUTE_COMPUTE_SDPA_DOUBLE_H_

#include "absl/status/status.h"
#include "core/compute/compute.h"

namespace attend {

// As ComputeSdpa. REQUIRES: problem.is_double().
absl::Status ComputeSdpaDouble(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_COMPUTE_SDPA_DOUBLE_H_
