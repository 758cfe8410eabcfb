// Ragged batches as their options describe them: sequences of different lengths laid end to end, without padding.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CORE_PROBLEM_SEQUENCES_H_
#define ATTEND_CORE_PROBLEM_SEQUENCES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "core/problem/key_visibility.h"
#include "core/problem/options.h"

namespace attend {

inline bool IsRagged(const AttentionOptions& options) {
  return !options.cumulative_query_lengths.empty() || !options.cumulative_key_lengths.empty();
}

// Checks both cumulative lengths against the shape [1, H, T, S]. Errors: INVALID_ARGUMENT with the field
// (`options.cumulative_key_lengths[2]`, `options.valid_lengths`, ...). REQUIRES: IsRagged(options).
absl::Status ValidateCumulativeLengths(const AttentionShape& shape, const AttentionOptions& options);

// The functions below REQUIRE options that ValidateCumulativeLengths accepted.

std::int64_t NumSequences(const AttentionOptions& options);

// Where sequence n lies among all queries and all keys.
struct Sequence {
  KeyRange queries;
  KeyRange keys;

  std::int64_t num_queries() const { return queries.end - queries.begin; }
  std::int64_t num_keys() const { return keys.end - keys.begin; }
};
Sequence GetSequence(const AttentionOptions& options, std::int64_t n);

// The options of one sequence by itself, without mask and bias.
AttentionOptions WithoutSequences(const AttentionOptions& options);

// The rows of a sequence's queries and the first `columns` columns of a view [1, .., T, S]; absent when the view is.
template <typename View>
View RowsAndColumnsOf(View view, const KeyRange& queries, std::int64_t columns) {
  if (!view) return view;
  view.data = view.Row(0, 0, queries.begin);
  view.length = queries.end - queries.begin;
  view.dim = columns;
  return view;
}

// How many columns a tensor [.., T, S] has: S, or in a ragged batch the most keys of a sequence, at least 1.
std::int64_t ScoreColumns(const AttentionOptions& options, std::int64_t key_length);

}  // namespace attend

#endif  // ATTEND_CORE_PROBLEM_SEQUENCES_H_
