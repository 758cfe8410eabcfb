#include "core/problem/sequences.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend {
namespace {

// Offsets that are never negative, never fall, start at 0 and end at `total`.
absl::Status ValidateOffsets(absl::Span<const std::int64_t> offsets, const std::string& field, std::int64_t total,
                             const char* tokens) {
  if (offsets.size() < 2) {
    return InvalidField(field, absl::StrCat(field, " has ", offsets.size(),
                                            " entries; it needs one more than there are sequences, at least 2"));
  }
  std::int64_t previous = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    const bool is_last = i + 1 == offsets.size();
    const bool right = (i > 0 || offsets[i] == 0) && offsets[i] >= previous && (!is_last || offsets[i] == total);
    previous = offsets[i];
    if (right) continue;
    const std::string element = absl::StrCat(field, "[", i, "]");
    return InvalidField(element, absl::StrCat(element, " is ", offsets[i],
                                              "; cumulative lengths start with 0, never fall, and end with ", total,
                                              ", the number of ", tokens));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateCumulativeLengths(const AttentionShape& shape, const AttentionOptions& options) {
  constexpr char kQueries[] = "options.cumulative_query_lengths", kKeys[] = "options.cumulative_key_lengths";
  if (shape.batch != 1) {
    return InvalidField(kQueries, absl::StrCat(kQueries, " is given, but there are ", shape.batch,
                                               " batch entries; a ragged batch is one entry that holds all sequences"));
  }
  if (!options.valid_lengths.empty()) {
    return InvalidField(
        "options.valid_lengths",
        "options.valid_lengths and cumulative lengths are both given; a ragged batch has no padding, so "
        "send the cumulative lengths alone");
  }
  if (!options.query_lengths.empty()) {
    return InvalidField("options.query_lengths",
                        "options.query_lengths and cumulative lengths are both given; a ragged batch has no padding, "
                        "so give the cumulative lengths alone");
  }
  const auto& queries = options.cumulative_query_lengths;
  const auto& keys = options.cumulative_key_lengths;
  if (absl::Status s = ValidateOffsets(queries, kQueries, shape.query_length, "queries"); !s.ok()) return s;
  if (absl::Status s = ValidateOffsets(keys, kKeys, shape.key_length, "keys"); !s.ok()) return s;
  if (queries.size() == keys.size()) return absl::OkStatus();
  return InvalidField(kKeys, absl::StrCat(kKeys, " has ", keys.size(), " entries, but ", kQueries, " has ",
                                          queries.size(), "; both list the same sequences"));
}

std::int64_t NumSequences(const AttentionOptions& options) {
  return static_cast<std::int64_t>(options.cumulative_query_lengths.size()) - 1;
}

Sequence GetSequence(const AttentionOptions& options, std::int64_t n) {
  const auto i = static_cast<std::size_t>(n);
  return {{options.cumulative_query_lengths[i], options.cumulative_query_lengths[i + 1]},
          {options.cumulative_key_lengths[i], options.cumulative_key_lengths[i + 1]}};
}

AttentionOptions WithoutSequences(const AttentionOptions& options) {
  AttentionOptions one = options;
  one.cumulative_query_lengths = one.cumulative_key_lengths = {};
  return one;
}

std::int64_t ScoreColumns(const AttentionOptions& options, std::int64_t key_length) {
  if (!IsRagged(options)) return key_length;
  std::int64_t longest = 1;
  for (std::int64_t n = 0; n < NumSequences(options); ++n) {
    longest = std::max(longest, GetSequence(options, n).num_keys());
  }
  return longest;
}

}  // namespace attend
