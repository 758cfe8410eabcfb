// The rules of a layer's norms and rotary embedding.
#ifndef ATTEND_CORE_LAYER_VALIDATE_NORM_ROTARY_H_
#define ATTEND_CORE_LAYER_VALIDATE_NORM_ROTARY_H_

#include "absl/status/status.h"
#include "core/layer/attend_problem.h"

namespace attend {

// Errors: INVALID_ARGUMENT with the field (`layer.query_norm.weight.shape`, `layer.key_norm.epsilon`,
// `layer.rotary.frequencies[3]`, ...). Weights and biases may be NaN or infinite, scalars and frequencies may not.
// REQUIRES: projections and head counts that were accepted. Pure; may be called concurrently.
absl::Status ValidateNormsAndRotary(const LayerView& layer, std::int64_t head_dim);

// Errors: INVALID_ARGUMENT with the field `position_offset`.
absl::Status ValidatePositionOffset(std::int64_t position_offset);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_VALIDATE_NORM_ROTARY_H_
