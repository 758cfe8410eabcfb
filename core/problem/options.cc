#include "core/problem/options.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

// One length for each batch entry, each in [0, limit]. `tokens` says what is counted.
absl::Status ValidateLengths(absl::Span<const std::int64_t> lengths, const char* field, const char* tokens,
                             std::int64_t batch, std::int64_t limit) {
  if (lengths.empty()) return absl::OkStatus();
  if (static_cast<std::int64_t>(lengths.size()) != batch) {
    return InvalidField(
        field, absl::StrCat(field, " has ", lengths.size(), " entries; it must have one for each of the ", batch,
                            " batch entries, or none when every token is valid"));
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] >= 0 && lengths[i] <= limit) continue;
    const std::string element = absl::StrCat(field, "[", i, "]");
    return InvalidField(element, absl::StrCat(element, " is ", lengths[i], "; it must be between 0 and ", limit,
                                              ", the number of ", tokens, " of that batch entry"));
  }
  return absl::OkStatus();
}

// Repeats an axis of size 1 up to the wanted size. False if it has another size.
bool BroadcastAxis(std::int64_t wanted, std::int64_t& size, std::int64_t& stride) {
  if (size == wanted) return true;
  if (size != 1) return false;
  size = wanted;
  stride = 0;
  return true;
}

absl::Status ValidateDimStride(const char* field, std::int64_t stride) {
  if (stride == 0 || stride == 1) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat(field, " has a stride of ", stride, " between keys; rows must be dense (1) or repeated (0)"));
}

// `field` is `options.mask` or `options.bias`; View a BasicHeadsView or a BasicTypedHeadsView.
template <typename View>
absl::Status BroadcastToScores(const AttentionShape& shape, const char* field, View& view) {
  if (!view) return absl::OkStatus();
  const std::string shape_field = absl::StrCat(field, ".shape");
  const View given = view;
  if (!BroadcastAxis(shape.batch, view.batch, view.batch_stride) ||
      !BroadcastAxis(shape.heads, view.heads, view.head_stride) ||
      !BroadcastAxis(shape.query_length, view.length, view.row_stride) ||
      !BroadcastAxis(shape.key_length, view.dim, view.dim_stride)) {
    return InvalidField(
        shape_field,
        absl::StrCat(shape_field, " is [", given.batch, ", ", given.heads, ", ", given.length, ", ", given.dim,
                     "] (batch, query heads, queries, keys); it must be [", shape.batch, ", ", shape.heads, ", ",
                     shape.query_length, ", ", shape.key_length, "], in which any axis may be 1 and is then repeated"));
  }
  return ValidateDimStride(field, view.dim_stride);
}

absl::Status BroadcastKeyMask(const AttentionShape& shape, MaskView& mask) {
  if (!mask) return absl::OkStatus();
  const MaskView given = mask;
  if (given.heads == 1 && given.length == 1 && BroadcastAxis(shape.batch, mask.batch, mask.batch_stride) &&
      BroadcastAxis(shape.key_length, mask.dim, mask.dim_stride)) {
    return ValidateDimStride("options.key_mask", mask.dim_stride);
  }
  constexpr char kShape[] = "options.key_mask.shape";
  const std::string axes =
      given.heads == 1 && given.length == 1
          ? absl::StrCat("[", given.batch, ", ", given.dim, "]")
          : absl::StrCat("[", given.batch, ", ", given.heads, ", ", given.length, ", ", given.dim, "]");
  return InvalidField(kShape, absl::StrCat(kShape, " is ", axes, "; it must be [", shape.batch, ", ", shape.key_length,
                                           "] (batch, keys), in which either axis may be 1 and is then repeated"));
}

bool IsInRange(double number, ScalarRange range) {
  switch (range) {
    case ScalarRange::kFinite: return std::isfinite(number);
    case ScalarRange::kNotNegative: return std::isfinite(number) && number >= 0;
    case ScalarRange::kPositive: break;
  }
  return std::isfinite(number) && number > 0;
}

// Leaves a scalar as it is if float32 has no normal number for it.
void RoundScalarsToFloat(AttentionOptions& options) {
  for (const ScalarOption& option : kScalarOptions) {
    const auto* const member = std::get_if<std::optional<double> AttentionOptions::*>(&option.member);
    if (member == nullptr || !(options.**member)) continue;
    const auto rounded = static_cast<float>(*(options.**member));
    if (std::isnormal(rounded)) options.** member = rounded;
  }
}

absl::Status ValidateBiasType(const TypedHeadsView& bias, DataType query_type) {
  if (!bias || bias.type == DataType::kFloat32 || (bias.type == DataType::kFloat64 && bias.type == query_type)) {
    return absl::OkStatus();
  }
  constexpr char kField[] = "options.bias.data_type";
  return InvalidField(kField, absl::StrCat(kField, " is ", std::string(DataTypeName(bias.type)),
                                           "; FLOAT64 needs queries of FLOAT64 too"));
}

absl::Status ValidatePerHead(const PerHeadView& values, const char* field, std::int64_t heads) {
  if (values.empty() || static_cast<std::int64_t>(values.size()) == heads) return absl::OkStatus();
  const std::string shape_field = absl::StrCat(field, ".shape");
  return InvalidField(shape_field, absl::StrCat(shape_field, " is [", values.size(), "]; it must be [", heads,
                                                "], one number for each query head"));
}

}  // namespace

absl::Status ValidateScalarOptions(const AttentionOptions& options, const std::string& owner) {
  for (const ScalarOption& option : kScalarOptions) {
    absl::Status status;
    std::visit(
        [&](auto member) {
          if (!(options.*member) || IsInRange(static_cast<double>(*(options.*member)), option.range)) return;
          const std::string field = absl::StrCat(owner, std::strchr(option.field, '.'));
          status = InvalidField(field, absl::StrCat(field, " is ", *(options.*member), "; it must be ", option.rule));
        },
        option.member);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ValidateOptions(const AttentionShape& given, DataType query_type, AttentionOptions& options) {
  AttentionShape shape = given;
  if (absl::Status s = ValidateScalarOptions(options); !s.ok()) return s;
  if (query_type != DataType::kFloat64) RoundScalarsToFloat(options);
  if (absl::Status s = BroadcastKeyMask(shape, options.key_mask); !s.ok()) return s;  // Over all keys.
  if (IsRagged(options)) {
    if (absl::Status s = ValidateCumulativeLengths(shape, options); !s.ok()) return s;
    shape.key_length = ScoreColumns(options, shape.key_length);
  }
  if (absl::Status s =
          ValidateLengths(options.valid_lengths, "options.valid_lengths", "keys", shape.batch, shape.key_length);
      !s.ok()) {
    return s;
  }
  if (absl::Status s =
          ValidateLengths(options.query_lengths, "options.query_lengths", "queries", shape.batch, shape.query_length);
      !s.ok()) {
    return s;
  }
  if (absl::Status s = BroadcastToScores(shape, "options.mask", options.mask); !s.ok()) return s;
  if (absl::Status s = BroadcastToScores(shape, "options.bias", options.bias); !s.ok()) return s;
  if (absl::Status s = ValidateBiasType(options.bias, query_type); !s.ok()) return s;
  for (const PerHeadOption& option : kPerHeadOptions) {
    if (absl::Status s = ValidatePerHead(options.*option.member, option.field, shape.heads); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace attend
