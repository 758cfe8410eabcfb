#include "core/problem/sdpa_problem.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/problem/options.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

AttentionShape ShapeOf(const SdpaProblem::Spec& spec) {
  return {spec.query.batch, spec.query.heads, spec.query.length, spec.key.length};
}

bool HasScales(const TypedHeadsView& view) { return view.type == DataType::kInt8; }

// Checks one tensor by itself. `name` is `query`, `key` or `value`; it `may_scale` if scales may belong to it.
absl::Status ValidateTensor(const TypedHeadsView& view, const char* name, bool may_scale) {
  if (!view) return InvalidField(name, absl::StrCat(name, " is missing; query, key and value are all required"));
  if (view.batch < 1 || view.heads < 1 || view.length < 1 || view.dim < 1) {
    const std::string shape = absl::StrCat(name, ".shape");
    return InvalidField(
        shape, absl::StrCat(shape, " has ", view.batch, " batch entries, ", view.heads, " heads, ", view.length,
                            " tokens and head size ", view.dim, "; each must be at least 1"));
  }
  if (!IsTensorSize({view.batch, view.heads, view.length, view.dim})) {
    const std::string shape = absl::StrCat(name, ".shape");
    return InvalidField(shape, absl::StrCat(shape, " describes more elements than any machine can hold; send less"));
  }
  if (view.dim_stride != 1) {
    return InvalidField(
        name, absl::StrCat(name, " has a stride of ", view.dim_stride, " within its rows; rows must be dense"));
  }
  if (!IsFloatingPoint(view.type) && !(may_scale && HasScales(view))) {
    const std::string type = absl::StrCat(name, ".data_type");
    return InvalidField(type, absl::StrCat(type, " is ", std::string(DataTypeName(view.type)),
                                           "; it must be FLOAT32, FLOAT64, FLOAT16 or BFLOAT16"));
  }
  return absl::OkStatus();
}

// `name` is `key` or `value`.
absl::Status ValidateType(const TypedHeadsView& view, const char* name, DataType query_type) {
  if ((view.type == DataType::kFloat64) == (query_type == DataType::kFloat64)) return absl::OkStatus();
  const std::string type = absl::StrCat(name, ".data_type");
  return InvalidField(type,
                      absl::StrCat(type, " is ", std::string(DataTypeName(view.type)), ", but query.data_type is ",
                                   std::string(DataTypeName(query_type)), "; FLOAT64 does not mix with other types"));
}

// `name` is `key` or `value`: scales are there if its type is INT8 and not otherwise, one for each row.
absl::Status ValidateScales(const TypedHeadsView& view, const HeadsView& scales, const char* name) {
  if (!HasScales(view) && !scales) return absl::OkStatus();
  const std::string field = absl::StrCat(name, "_scales");
  const auto invalid = [&field](const std::string& problem) {
    return InvalidField(field, absl::StrCat(field, " ", problem));
  };
  if (!scales) return invalid(absl::StrCat("is missing; an INT8 ", name, " needs a scale for each token and head"));
  if (!HasScales(view)) {
    return invalid(absl::StrCat("is there, but ", name, ".data_type is ", std::string(DataTypeName(view.type)),
                                "; scales go with INT8 alone"));
  }
  if (scales.batch == view.batch && scales.heads == view.heads && scales.length == view.length && scales.dim == 1) {
    return absl::OkStatus();
  }
  return invalid(absl::StrCat("has the shape [", scales.batch, ", ", scales.heads, ", ", scales.length, ", ",
                              scales.dim, "]; it must be [", view.batch, ", ", view.heads, ", ", view.length, ", 1]"));
}

// Compares an axis that two tensors share. The error is about `field`.
absl::Status ValidateSame(const char* field, const char* axis, std::int64_t actual, const char* other,
                          std::int64_t expected) {
  if (actual == expected) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(field, " has ", axis, " ", actual, ", but ", other, " has ", expected,
                                          "; they must be equal"));
}

absl::Status ValidateHeads(const TypedHeadsView& query, const TypedHeadsView& key) {
  if (HeadsDivide(query.heads, key.heads)) return absl::OkStatus();
  return InvalidField("key.shape",
                      absl::StrCat("key.shape has number of heads ", key.heads, ", but query.shape has ", query.heads,
                                   "; the number of key heads must divide that of query heads"));
}

absl::Status ValidateShapes(const SdpaProblem::Spec& spec) {
  const auto& [query, key, value, options, key_scales, value_scales] = spec;
  for (absl::Status status : {
           ValidateTensor(query, "query", false),
           ValidateTensor(key, "key", true),
           ValidateTensor(value, "value", true),
       }) {
    if (!status.ok()) return status;
  }
  for (absl::Status status : {
           ValidateSame("key.shape", "batch size", key.batch, "query.shape", query.batch),
           ValidateHeads(query, key),
           ValidateSame("key.shape", "head size", key.dim, "query.shape", query.dim),
           ValidateSame("value.shape", "batch size", value.batch, "query.shape", query.batch),
           ValidateSame("value.shape", "number of heads", value.heads, "key.shape", key.heads),
           ValidateSame("value.shape", "number of tokens", value.length, "key.shape", key.length),
           ValidateType(key, "key", query.type),
           ValidateType(value, "value", query.type),
           ValidateScales(key, key_scales, "key"),
           ValidateScales(value, value_scales, "value"),
       }) {
    if (!status.ok()) return status;
  }
  if (!IsTensorSize({query.batch, query.heads, query.length, key.length}) ||
      !IsTensorSize({query.batch, query.heads, query.length, value.dim})) {
    return InvalidField("query.shape",
                        "query.shape, key.shape and value.shape together describe more scores or outputs "
                        "than any machine can hold; send fewer queries or keys");
  }
  return absl::OkStatus();
}

// The length of an empty set of keys, for a problem of one batch entry.
constexpr std::int64_t kNoKeys[] = {0};

// Rows [begin, begin + length) of the one batch entry of a ragged batch.
template <class View>
View RowsOf(View view, std::int64_t begin, std::int64_t length) {
  if (view) view.data = view.Row(0, 0, begin);
  view.length = length;
  return view;
}

}  // namespace

SdpaProblem::SdpaProblem(const Spec& spec, double scale)
    : spec_(spec), scale_(scale), score_columns_(ScoreColumns(spec.options, spec.key.length)) {}

absl::StatusOr<SdpaProblem> SdpaProblem::Create(const Spec& spec) {
  if (absl::Status status = ValidateShapes(spec); !status.ok()) return status;
  Spec normalized = spec;
  if (absl::Status status = ValidateOptions(ShapeOf(spec), spec.query.type, normalized.options); !status.ok())
    return status;
  double scale = 1.0 / std::sqrt(static_cast<double>(spec.query.dim));
  if (spec.query.type != DataType::kFloat64) scale = static_cast<float>(scale);
  if (normalized.options.scale) scale = *normalized.options.scale;
  return SdpaProblem(normalized, scale);
}

void SdpaProblem::Rebind(const Spec& spec) {
  spec_.query.data = spec.query.data;
  spec_.key.data = spec.key.data;
  spec_.value.data = spec.value.data;
  spec_.key_scales.data = spec.key_scales.data;
  spec_.value_scales.data = spec.value_scales.data;
  RebindOptions(spec.options, spec_.options);
}

std::int64_t SdpaProblem::ValidKeys(std::int64_t b) const {
  return attend::ValidKeys(spec_.options, ShapeOf(spec_), b);
}

std::int64_t SdpaProblem::PositionOffset(std::int64_t b) const {
  return attend::PositionOffset(spec_.options, ShapeOf(spec_), b);
}

KeyRange SdpaProblem::VisibleKeys(std::int64_t b, std::int64_t t) const {
  return VisibleKeyRange(spec_.options, ValidKeys(b), t + PositionOffset(b));
}

double SdpaProblem::Flops() const {
  const double per_pair = 2 * (static_cast<double>(head_dim()) + static_cast<double>(value_dim()));
  return per_pair * static_cast<double>(num_heads()) * VisiblePairs(spec_.options, ShapeOf(spec_));
}

SdpaProblem SdpaProblem::SequenceAlone(std::int64_t n) const {
  const Sequence sequence = GetSequence(spec_.options, n);
  // A problem has at least one key. That of a sequence without keys is not valid.
  const std::int64_t columns = std::max<std::int64_t>(sequence.num_keys(), 1);
  const std::int64_t first_key = std::min(sequence.keys.begin, key_length() - columns);
  Spec alone{RowsOf(query(), sequence.queries.begin, sequence.num_queries()),
             RowsOf(key(), first_key, columns),
             RowsOf(value(), first_key, columns),
             WithoutSequences(spec_.options),
             RowsOf(key_scales(), first_key, columns),
             RowsOf(value_scales(), first_key, columns)};
  alone.options.mask = RowsAndColumnsOf(spec_.options.mask, sequence.queries, columns);
  alone.options.bias = RowsAndColumnsOf(spec_.options.bias, sequence.queries, columns);
  MaskView& key_mask = alone.options.key_mask;
  if (key_mask) key_mask.data += first_key * key_mask.dim_stride, key_mask.dim = columns;
  if (sequence.num_keys() == 0) alone.options.valid_lengths = kNoKeys;
  return SdpaProblem(alone, scale_);
}

}  // namespace attend
