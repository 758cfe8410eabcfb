#include "core/problem/key_visibility.h"

#include <algorithm>
#include <limits>

#include "core/problem/sequences.h"

namespace attend {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

// How many keys after its position a query sees.
std::int64_t KeysAhead(const AttentionOptions& options) {
  if (options.causal.value_or(CausalMode::kNone) != CausalMode::kNone) return 0;
  return options.sliding_window_right.value_or(kUnlimited);
}

std::int64_t KeysBehind(const AttentionOptions& options) { return options.sliding_window_left.value_or(kUnlimited); }

// The sum of clamp(first + i, 0, limit) over i in [0, count).
double SumOfClampedRamp(std::int64_t first, std::int64_t count, std::int64_t limit) {
  const std::int64_t ramp_begin = std::clamp(-first, std::int64_t{0}, count);  // The first i above 0.
  const std::int64_t ramp_end = std::clamp(limit - first, ramp_begin, count);  // The first i at the limit.
  const double on_ramp = static_cast<double>(ramp_end - ramp_begin);
  const double ends = static_cast<double>(first + ramp_begin) + static_cast<double>(first + ramp_end - 1);
  return on_ramp * ends / 2 + static_cast<double>(count - ramp_end) * static_cast<double>(limit);
}

double VisiblePairsOfSequences(const AttentionOptions& options) {
  const AttentionOptions one = WithoutSequences(options);
  double pairs = 0;
  for (std::int64_t n = 0; n < NumSequences(options); ++n) {
    const Sequence sequence = GetSequence(options, n);
    pairs += VisiblePairs(one, {1, 1, sequence.num_queries(), sequence.num_keys()});
  }
  return pairs;
}

}  // namespace

std::int64_t ValidKeys(const AttentionOptions& options, const AttentionShape& shape, std::int64_t b) {
  return options.valid_lengths.empty() ? shape.key_length : options.valid_lengths[static_cast<std::size_t>(b)];
}

std::int64_t PositionOffset(const AttentionOptions& options, const AttentionShape& shape, std::int64_t b) {
  if (options.causal == CausalMode::kTopLeft) return 0;
  const std::int64_t valid_queries =
      options.query_lengths.empty() ? shape.query_length : options.query_lengths[static_cast<std::size_t>(b)];
  return ValidKeys(options, shape, b) - valid_queries;
}

KeyRange VisibleKeyRange(const AttentionOptions& options, std::int64_t valid_keys, std::int64_t position) {
  const std::int64_t ahead = KeysAhead(options);
  const std::int64_t behind = KeysBehind(options);
  // Compared before they are added, because the window may be as large as INT64_MAX.
  const std::int64_t end =
      ahead >= valid_keys - position ? valid_keys : std::max<std::int64_t>(position + ahead + 1, 0);
  const std::int64_t begin = behind >= position ? 0 : std::min(position - behind, end);
  return {begin, end};
}

double VisiblePairs(const AttentionOptions& options, const AttentionShape& shape) {
  if (IsRagged(options)) return VisiblePairsOfSequences(options);
  // No position is further than this from any key, so that a larger window is the same window.
  const std::int64_t everything = shape.query_length + shape.key_length;
  const std::int64_t ahead = std::min(KeysAhead(options), everything);
  const std::int64_t behind = std::min(KeysBehind(options), everything);
  const bool same_for_all = options.valid_lengths.empty() && options.query_lengths.empty();
  double pairs = 0;
  for (std::int64_t b = 0; b < (same_for_all ? 1 : shape.batch); ++b) {
    const std::int64_t keys = ValidKeys(options, shape, b);
    const std::int64_t offset = PositionOffset(options, shape, b);
    pairs += SumOfClampedRamp(offset + ahead + 1, shape.query_length, keys) -
             SumOfClampedRamp(offset - behind, shape.query_length, keys);
  }
  return same_for_all ? pairs * static_cast<double>(shape.batch) : pairs;
}

double AllPairs(const AttentionOptions& options, const AttentionShape& shape) {
  const auto product = [](std::int64_t a, std::int64_t b) { return static_cast<double>(a) * static_cast<double>(b); };
  if (!IsRagged(options)) return product(shape.query_length, shape.key_length) * static_cast<double>(shape.batch);
  double pairs = 0;
  for (std::int64_t n = 0; n < NumSequences(options); ++n) {
    const Sequence sequence = GetSequence(options, n);
    pairs += product(sequence.num_queries(), sequence.num_keys());
  }
  return pairs;
}

}  // namespace attend
