// Affine maps of many tokens, spread over threads.
#ifndef ATTEND_CORE_ATTENTION_PROJECTION_H_
#define ATTEND_CORE_ATTENTION_PROJECTION_H_

#include <cstdint>

#include "core/attention/attend_problem.h"
#include "core/attention/compute.h"
#include "core/attention/workspace.h"

namespace attend {

// y = x . weight^T + bias for dense x [num_rows, in_features] and y [num_rows, out_features]. Each element of y is one
// chain of fused multiply-adds over ascending in_features, so its bits depend on its own row of x and weight alone.
struct Projection {
  const float* x = nullptr;
  std::int64_t num_rows = 0;
  LinearView linear;
  float* y = nullptr;
};

// Computes `count` independent projections. Stops early, with y unspecified, when `context` is cancelled.
void Project(const ComputeContext& context, const Projection* projections, std::int64_t count, WorkspacePool& pool);

}  // namespace attend

#endif  // ATTEND_CORE_ATTENTION_PROJECTION_H_
