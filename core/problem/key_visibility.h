// Which keys causality, sliding window and lengths leave to a query, as pure functions of the options.
//
// With S' valid keys and T' valid queries, query t has position p = t + S' - T' (p = t with kTopLeft) and sees
// the keys j in [max(0, p - left), min(S', p + right + 1)), where causality makes `right` 0. Window sizes up to
// INT64_MAX do not overflow.
//
// All functions REQUIRE options that ValidateOptions accepted for `shape`, and indices within their axes. Pure; may be
// called concurrently.
#ifndef ATTEND_CORE_PROBLEM_KEY_VISIBILITY_H_
#define ATTEND_CORE_PROBLEM_KEY_VISIBILITY_H_

#include <cstdint>

#include "core/problem/options.h"

namespace attend {

// The keys [begin, end); none when begin == end. 0 <= begin <= end <= S'.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// S' of batch entry b.
std::int64_t ValidKeys(const AttentionOptions& options, const AttentionShape& shape, std::int64_t b);

// p - t of batch entry b.
std::int64_t PositionOffset(const AttentionOptions& options, const AttentionShape& shape, std::int64_t b);

// What a query at `position` may see among `valid_keys` keys.
KeyRange VisibleKeyRange(const AttentionOptions& options, std::int64_t valid_keys, std::int64_t position);

// The number of visible query-key pairs of one head, over all batch entries or sequences, before masks. O(1) for each
// entry or sequence.
double VisiblePairs(const AttentionOptions& options, const AttentionShape& shape);

// The number of all pairs, visible or not: a head's weights, with those that are 0 because their key is hidden.
double AllPairs(const AttentionOptions& options, const AttentionShape& shape);

}  // namespace attend

#endif  // ATTEND_CORE_PROBLEM_KEY_VISIBILITY_H_
