#include "core/problem/sdpa_problem.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/checked_product.h"
#include "core/base/error.h"
#include "core/compute/scratch_bytes.h"
#include "core/problem/option_table.h"
#include "core/problem/sequences.h"
#include "core/problem/validate_options.h"

namespace attend {
namespace {

AttentionShape ShapeOf(const SdpaProblem::Spec& spec) {
  return {spec.query.batch, spec.query.heads, spec.query.length, spec.key.length};
}

// `name` is `query`, `key` or `value`; what is said about one tensor alone.
absl::Status ValidateTensor(const TypedHeadsView& view, const char* name) {
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
  if (!IsFloatingPoint(view.type)) {
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

// One axis that two tensors share. `field` is blamed.
absl::Status ValidateSame(const char* field, const char* axis, std::int64_t actual, const char* other,
                          std::int64_t expected) {
  if (actual == expected) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(field, " has ", axis, " ", actual, ", but ", other, " has ", expected,
                                          "; they must be equal"));
}

absl::Status ValidateHeads(const TypedHeadsView& query, const TypedHeadsView& key) {
  if (query.heads % key.heads == 0) return absl::OkStatus();
  return InvalidField("key.shape",
                      absl::StrCat("key.shape has number of heads ", key.heads, ", but query.shape has ", query.heads,
                                   "; the number of key heads must divide that of query heads"));
}

absl::Status ValidateShapes(const SdpaProblem::Spec& spec) {
  const auto& [query, key, value, options] = spec;
  for (absl::Status status : {
           ValidateTensor(query, "query"),
           ValidateTensor(key, "key"),
           ValidateTensor(value, "value"),
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
  if (spec.options.scale) scale = *spec.options.scale;
  return SdpaProblem(normalized, scale);
}

void SdpaProblem::Rebind(const Spec& spec) {
  spec_.query.data = spec.query.data;
  spec_.key.data = spec.key.data;
  spec_.value.data = spec.value.data;
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

double SdpaProblem::ScratchBytes(int num_threads, bool consumes_weights) const {
  const auto is_narrow = [](const TypedHeadsView& view) { return ElementSize(view.type) == 2; };
  return SdpaScratchBytes({.rows = query_length() * group_size(),
                           .kv_heads = batch() * num_kv_heads(),
                           .key_length = key_length(),
                           .head_dim = head_dim(),
                           .value_dim = value_dim(),
                           .is_double = is_double(),
                           .has_narrow = is_narrow(query()) || is_narrow(key()) || is_narrow(value()),
                           .consumes_weights = consumes_weights},
                          num_threads);
}

}  // namespace attend
