// The rules of AttentionOptions, checked once for both kinds of problem.
#ifndef ATTEND_CORE_PROBLEM_VALIDATE_OPTIONS_H_
#define ATTEND_CORE_PROBLEM_VALIDATE_OPTIONS_H_

#include "absl/status/status.h"
#include "core/problem/key_visibility.h"
#include "core/problem/options.h"

namespace attend {

// Checks every option against its range, the shape `given` and the type of the queries, and gives mask and bias the
// full shape [B, H, T, S]: an axis of size 1 becomes a repeated one with stride 0.
//
// Errors: INVALID_ARGUMENT with the field as the API names it: `options.scale`, `options.valid_lengths[2]`,
// `options.mask.shape`, ... `options` is then unspecified. Numbers in tensors may be NaN or infinite, scalars may not.
// Pure; may be called concurrently.
absl::Status ValidateOptions(const AttentionShape& given, DataType query_type, AttentionOptions& options);

}  // namespace attend

#endif  // ATTEND_CORE_PROBLEM_VALIDATE_OPTIONS_H_
