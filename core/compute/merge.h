// Attention over disjoint sets of keys, put together afterwards.
//
// Attention over keys A and keys B is the mean of both results weighted by their softmax denominators, so a partial
// result needs nothing but its log-sum-exp. Merging is commutative and associative up to rounding, and a part
// that saw no key (log-sum-exp -infinity) is its exact identity. So keys may be spread over servers, or a long
// context over requests, each asked for OUTPUT and LOG_SUM_EXP (Milakov & Gimelshein 2018, arXiv:1805.02867; cascaded
// as in FlashInfer, Ye et al. 2025, arXiv:2501.01005).
//
// An attention sink belongs to the denominator once: give it to exactly one of the parts.
//
// All functions are pure and may be called concurrently on different outputs.
#ifndef ATTEND_CORE_COMPUTE_MERGE_H_
#define ATTEND_CORE_COMPUTE_MERGE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attend {

// What one set of keys contributes to some query rows (of all batch entries and heads, in any order that all parts
// share). Non-owning.
struct PartialAttention {
  absl::Span<const float> output;       // [rows, value_dim], dense.
  absl::Span<const float> log_sum_exp;  // [rows]; natural logarithm; -infinity where the row saw no key.
};

struct MergedAttention {
  absl::Span<float> output;       // [rows, value_dim], dense; zeros where no part saw a key.
  absl::Span<float> log_sum_exp;  // [rows]; -infinity where no part saw a key.
  bool keeps_unseen = false;      // Leaves the output as it is where no part saw a key.
};

// Merges any number of parts, also one or none, in float64 and in the order given. A part's row with log-sum-exp
// -infinity is not read, so its output may hold anything; a NaN log-sum-exp makes the row NaN. `merged` may be the
// memory of one of the parts.
//
// Errors: INVALID_ARGUMENT with the field (`parts[1].output`, `parts[1].log_sum_exp`, `merged.output`) when the sizes
// disagree; nothing is then written.
absl::Status MergePartialAttention(absl::Span<const PartialAttention> parts, const MergedAttention& merged);

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_MERGE_H_
