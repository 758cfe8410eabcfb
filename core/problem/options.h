// How queries look at keys: the options of scaled dot-product attention as plain values, as data, and their rules.
#ifndef ATTEND_CORE_PROBLEM_OPTIONS_H_
#define ATTEND_CORE_PROBLEM_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/tensor/heads_view.h"

namespace attend {

// Which keys the causal mask leaves to query t (0-based), with T' valid queries and S' valid keys of its batch entry.
enum class CausalMode : std::uint8_t {
  kBottomRight = 1,  // Key j is visible when j <= t + S' - T'.
  kTopLeft = 2,      // Key j is visible when j <= t.
  kNone = 3,
};

// How exact the arithmetic is.
enum class Precision : std::uint8_t {
  kExact = 1,  // All promises of accuracy and of equal bits.
  kFast = 2,   // As fast as the machine allows for 16-bit tensors.
};

// One number for each query head, FLOAT32 or FLOAT64, whatever the type of the problem; read as double. Non-owning.
class PerHeadView {
 public:
  PerHeadView() = default;
  // NOLINTBEGIN(google-explicit-constructor): every span and vector of such numbers is one.
  PerHeadView(absl::Span<const float> numbers) : data_(numbers.data()), size_(numbers.size()) {}
  PerHeadView(absl::Span<const double> numbers) : data_(numbers.data()), size_(numbers.size()), is_double_(true) {}
  PerHeadView(const std::vector<float>& numbers) : PerHeadView(absl::MakeConstSpan(numbers)) {}
  PerHeadView(const std::vector<double>& numbers) : PerHeadView(absl::MakeConstSpan(numbers)) {}
  // NOLINTEND(google-explicit-constructor)

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  double operator[](std::int64_t h) const {
    return is_double_ ? static_cast<const double*>(data_)[h] : static_cast<const float*>(data_)[h];
  }

 private:
  const void* data_ = nullptr;
  std::size_t size_ = 0;
  bool is_double_ = false;
};

// Steps in order of application: scale, softcap, bias and ALiBi, masks, sink, softmax (Vaswani et al. 2017,
// arXiv:1706.03762). The position p of query t is t + S' - T', or t with kTopLeft.
//
// An axis of size 1 of a mask or bias is repeated, as is one of stride 0.
//
// Scalars are taken as they are given in FLOAT64, and rounded to float32 where the arithmetic is FLOAT32; those that
// are no normal number in float32 stay as they are.
//
// All views and spans are non-owning and must outlive the problem built from them.
struct AttentionOptions {
  std::optional<double> scale;                       // Finite. Default 1/sqrt(head_dim).
  std::optional<CausalMode> causal;                  // Default kNone.
  std::optional<std::int64_t> sliding_window_left;   // Key j visible when j >= p - left; >= 0.
  std::optional<std::int64_t> sliding_window_right;  // Key j visible when j <= p + right; >= 0.
  std::optional<double> softcap;                     // Positive, finite: x -> softcap * tanh(x / softcap).
  absl::Span<const std::int64_t> valid_lengths;      // S' per batch entry, each in [0, S]; empty: all S.
  absl::Span<const std::int64_t> query_lengths;      // T' per batch entry, each in [0, T]; empty: all T. Only moves p.
  // A ragged batch: sequences laid end to end along T and S of the one batch entry. For N sequences N + 1 offsets each,
  // from 0 to T and to S: sequence n has the queries [cumulative_query_lengths[n], cumulative_query_lengths[n + 1]),
  // which see its keys alone, and whose positions are counted within it. Both empty: one sequence. They go without
  // valid_lengths and query_lengths. Views of shape [.., T, S] then have a column for each key of the longest sequence,
  // column j being key j of the row's own sequence.
  absl::Span<const std::int64_t> cumulative_query_lengths;
  absl::Span<const std::int64_t> cumulative_key_lengths;
  MaskView mask;  // [B, H, T, S], broadcast by zero strides; non-zero is visible. Absent: all visible.
  // A padding mask: the same for all heads and queries, so [B, 1, 1, S]; non-zero is visible. S counts all keys, also
  // those of a ragged batch, whose mask is [1, 1, 1, S] over all sequences. A key is visible when this and every other
  // mask say so; positions stay as they are. Absent: all visible.
  MaskView key_mask;
  // [B, H, T, S], broadcast by zero strides; added after softcap. FLOAT32, or FLOAT64 where query is. Absent: none.
  TypedHeadsView bias;
  PerHeadView alibi_slopes;            // [H]: adds -slope * |p - j|. Empty: none.
  PerHeadView sinks;                   // [H]: a logit in the denominator alone. Empty: none.
  std::optional<Precision> precision;  // Default kExact.
};

// The options as data. Whoever reads, checks, merges or stores options goes through these tables, so that a new option
// is a member of AttentionOptions, a line here and its mathematics. Masks and bias, which have forms of their own, are
// not in them.
//
// `field` is the path that errors name; behind `options.` it is the field's name in every protocol.

// What a number may be; finite in any case.
enum class ScalarRange : std::uint8_t { kFinite, kNotNegative, kPositive };

// A number that may be absent.
struct ScalarOption {
  const char* field;
  std::variant<std::optional<double> AttentionOptions::*, std::optional<std::int64_t> AttentionOptions::*> member;
  ScalarRange range;
  const char* rule;           // The range for people, behind "it must be".
  bool request_only = false;  // A layer cannot have it.
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

// The axes that options are checked against: batch entries B, query heads H, queries T, keys S; each at least 1.
struct AttentionShape {
  std::int64_t batch = 1;
  std::int64_t heads = 1;
  std::int64_t query_length = 1;
  std::int64_t key_length = 1;
};

// Checks every option against its range, the shape `given` and the type of the queries, rounds the scalars to the
// arithmetic, and gives mask, key mask and bias their full shapes: an axis of size 1 becomes a repeated one with stride
// 0.
//
// Errors: INVALID_ARGUMENT with the field as the API names it: `options.scale`, `options.valid_lengths[2]`,
// `options.mask.shape`, ... `options` is then unspecified. Numbers in tensors may be NaN or infinite, scalars may not.
// Pure; may be called concurrently.
absl::Status ValidateOptions(const AttentionShape& given, DataType query_type, AttentionOptions& options);

// Checks the scalars alone. `owner` is the message that has them. Errors: INVALID_ARGUMENT with `OWNER.scale` and the
// like.
absl::Status ValidateScalarOptions(const AttentionOptions& options, const std::string& owner = "options");

}  // namespace attend

#endif  // ATTEND_CORE_PROBLEM_OPTIONS_H_
