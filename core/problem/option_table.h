// The attention options as data: whoever reads, checks, merges or prints options goes through these tables, so that a
// new option is a member of AttentionOptions, its mathematics, and one line here. Options that have a form of their own
// (masks and bias) are not in them.
//
// `field` is the path that errors name, and behind `options.` the field's name in every protocol.
#ifndef ATTEND_CORE_PROBLEM_OPTION_TABLE_H_
#define ATTEND_CORE_PROBLEM_OPTION_TABLE_H_

#include <cstdint>
#include <iterator>
#include <optional>
#include <variant>

#include "absl/types/span.h"
#include "core/problem/options.h"

namespace attend {

// What a number may be; finite in any case.
enum class ScalarRange : std::uint8_t { kFinite, kNotNegative, kPositive };

// A number that may be absent; a request's or a layer's.
struct ScalarOption {
  const char* field;
  std::variant<std::optional<double> AttentionOptions::*, std::optional<std::int64_t> AttentionOptions::*> member;
  ScalarRange range;
  const char* rule;  // The range for people, behind "it must be".
};
inline constexpr ScalarOption kScalarOptions[] = {
    {"options.scale", &AttentionOptions::scale, ScalarRange::kFinite, "finite, or absent for 1/sqrt(head size)"},
    {"options.sliding_window_left", &AttentionOptions::sliding_window_left, ScalarRange::kNotNegative,
     "at least 0, or absent for an unlimited window"},
    {"options.sliding_window_right", &AttentionOptions::sliding_window_right, ScalarRange::kNotNegative,
     "at least 0, or absent for an unlimited window"},
    {"options.softcap", &AttentionOptions::softcap, ScalarRange::kPositive,
     "positive and finite, or absent for no cap"},
};

// One of several modes, or absent; a request's or a layer's. The modes have the numbers of the protocol's.
struct EnumOption {
  const char* field;
  std::variant<std::optional<CausalMode> AttentionOptions::*, std::optional<Precision> AttentionOptions::*> member;
};
inline constexpr EnumOption kEnumOptions[] = {
    {"options.causal", &AttentionOptions::causal},
    {"options.precision", &AttentionOptions::precision},
};

// A number for each query head; a request's or a layer's.
struct PerHeadOption {
  const char* field;
  PerHeadView AttentionOptions::*member;
  const char* shape;  // For people.
};
inline constexpr PerHeadOption kPerHeadOptions[] = {
    {"options.alibi_slopes", &AttentionOptions::alibi_slopes, "[H], one slope for each query head"},
    {"options.sinks", &AttentionOptions::sinks, "[H], one logit for each query head"},
};

// A list of lengths; a request's alone.
struct LengthsOption {
  const char* field;
  absl::Span<const std::int64_t> AttentionOptions::*member;
  bool cumulative;  // One more than there are sequences; otherwise one for each batch entry.
};
inline constexpr LengthsOption kLengthsOptions[] = {
    {"options.valid_lengths", &AttentionOptions::valid_lengths, false},
    {"options.cumulative_query_lengths", &AttentionOptions::cumulative_query_lengths, true},
    {"options.cumulative_key_lengths", &AttentionOptions::cumulative_key_lengths, true},
};

// Sets every scalar, every mode and every per-head option that `options` leaves open to that of `defaults`.
inline void FillOptions(const AttentionOptions& defaults, AttentionOptions& options) {
  const auto fill = [&](auto member) {
    if (!(options.*member)) options.*member = defaults.*member;
  };
  for (const ScalarOption& option : kScalarOptions) std::visit(fill, option.member);
  for (const EnumOption& option : kEnumOptions) std::visit(fill, option.member);
  for (const PerHeadOption& option : kPerHeadOptions) {
    if ((options.*option.member).empty()) options.*option.member = defaults.*option.member;
  }
}

// Points the tensors that `options` views at where those of `from` are. REQUIRES: both view tensors of the same types
// and shapes.
inline void RebindOptions(const AttentionOptions& from, AttentionOptions& options) {
  options.mask.data = from.mask.data;
  options.key_mask.data = from.key_mask.data;
  options.bias.data = from.bias.data;
  for (const PerHeadOption& option : kPerHeadOptions) options.*option.member = from.*option.member;
}

}  // namespace attend

#endif  // ATTEND_CORE_PROBLEM_OPTION_TABLE_H_
