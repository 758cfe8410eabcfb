// Affine maps of many tokens, spread over threads.
#ifndef ATTEND_CORE_LAYER_PROJECTION_H_
#define ATTEND_CORE_LAYER_PROJECTION_H_

#include <cstdint>

#include "core/compute/context.h"
#include "core/compute/workspace.h"
#include "core/layer/attend_problem.h"

namespace attend {

// y = x . weight^T + bias for dense x [num_rows, in_features] and y [num_rows, out_features]. Each element of y depends
// on its own row of x and weight alone, also in its bits: it is one chain of fused multiply-adds over ascending
// in_features, or for double what DoubleKernels::dot says.
template <typename T>
struct Projection {
  const T* x = nullptr;
  std::int64_t num_rows = 0;
  LinearView linear;  // For float of any type but FLOAT64, for double of that.
  T* y = nullptr;
};

// Computes `count` independent projections. Stops early, with y unspecified, when `context` is cancelled.
void Project(const ComputeContext& context, const Projection<float>* projections, std::int64_t count,
             WorkspacePool& pool);
void Project(const ComputeContext& context, const Projection<double>* projections, std::int64_t count,
             WorkspacePool& pool);

// An upper bound of the bytes that one projection in FLOAT32 from `in_features` allocates, with `num_threads` threads.
// Pure; in double, so that no shape overflows.
double ProjectionScratchBytes(std::int64_t in_features, int num_threads);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_PROJECTION_H_
