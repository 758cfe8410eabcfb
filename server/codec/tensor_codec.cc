#include "server/codec/tensor_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "attend/v1/tensor.pb.h"
#include "core/base/checked_product.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors travel little-endian and are copied as they are");

// What floats() and bools() point to before there is anything.
alignas(64) constexpr std::byte kPlaceholder[64] = {};

absl::string_view Name(DataType type) {
  const std::string_view name = DataTypeName(type);
  return {name.data(), name.size()};
}

std::optional<DataType> FromWire(std::int32_t data_type, DataType default_type) {
  switch (data_type) {
    case v1::DATA_TYPE_UNSPECIFIED: return default_type;
    case v1::DATA_TYPE_FLOAT32: return DataType::kFloat32;
    case v1::DATA_TYPE_FLOAT64: return DataType::kFloat64;
    case v1::DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16: return DataType::kBFloat16;
    case v1::DATA_TYPE_BOOL: return DataType::kBool;
    default: return std::nullopt;
  }
}

absl::Status CheckType(const RawTensor& raw, const TensorRule& rule) {
  const std::optional<DataType> type = FromWire(raw.data_type, rule.type);
  if (type == rule.type) return absl::OkStatus();
  const std::string field = absl::StrCat(rule.field, ".data_type");
  const std::string given = type ? absl::StrCat("DATA_TYPE_", Name(*type)) : absl::StrCat(raw.data_type);
  return InvalidField(field, absl::StrCat(field, " is ", given, type ? "" : ", which is not a known type", "; ",
                                          rule.field, " must be DATA_TYPE_", Name(rule.type)));
}

absl::Status CheckRank(const RawTensor& raw, const TensorRule& rule) {
  if (std::find(rule.ranks.begin(), rule.ranks.end(), raw.rank) != rule.ranks.end() && raw.rank != 0) {
    return absl::OkStatus();
  }
  const std::string field = absl::StrCat(rule.field, ".shape");
  const std::string given =
      raw.rank == 0 ? " is empty" : absl::StrCat(" has ", raw.rank, raw.rank == 1 ? " axis" : " axes");
  return InvalidField(field, absl::StrCat(field, given, "; it must be ", rule.shapes));
}

// Every axis is positive and their product a size that a machine can have.
absl::StatusOr<std::int64_t> CheckAxes(const RawTensor& raw, const TensorRule& rule) {
  std::int64_t elements = 1;
  for (int i = 0; i < raw.rank; ++i) {
    const std::int64_t axis = raw.shape[static_cast<std::size_t>(i)];
    if (axis < 1) {
      const std::string field = absl::StrCat(rule.field, ".shape[", i, "]");
      return InvalidField(field, absl::StrCat(field, " is ", axis, "; every axis must be at least 1"));
    }
    if (__builtin_mul_overflow(elements, axis, &elements) || elements > kMaxTensorElements) {
      const std::string field = absl::StrCat(rule.field, ".shape");
      return InvalidField(field, absl::StrCat(field, " describes more elements than any machine can hold; send less"));
    }
  }
  return elements;
}

// The elements are there, once, and as many as the shape says.
absl::Status CheckContents(const RawTensor& raw, const TensorRule& rule, std::int64_t elements) {
  const std::string shape = ShapeText({raw.shape.data(), static_cast<std::size_t>(raw.rank)});
  const std::int64_t bytes = elements * ElementSize(rule.type);
  if (!raw.data.empty() && raw.num_values != 0) {
    return InvalidField(rule.field,
                        absl::StrCat(rule.field, " has both data (", raw.data.size(), " bytes) and values (",
                                     raw.num_values, " numbers); send exactly one of them"));
  }
  if (raw.data.empty() && raw.num_values == 0) {
    return InvalidField(rule.field, absl::StrCat(rule.field, " has neither data nor values; send ", bytes,
                                                 " bytes of data or ", elements, " values for its shape ", shape));
  }
  if (raw.num_values != 0 && raw.num_values != elements) {
    const std::string field = absl::StrCat(rule.field, ".values");
    return InvalidField(field, absl::StrCat(field, " has ", raw.num_values, " numbers, but ", rule.field, ".shape is ",
                                            shape, ", which takes ", elements));
  }
  if (!raw.data.empty() && raw.data.size() != bytes) {
    const std::string field = absl::StrCat(rule.field, ".data");
    return InvalidField(field, absl::StrCat(field, " has ", raw.data.size(), " bytes, but ", rule.field, ".shape is ",
                                            shape, ", which takes ", bytes, " (", elements, " elements of ",
                                            ElementSize(rule.type), " bytes, DATA_TYPE_", Name(rule.type), ")"));
  }
  return absl::OkStatus();
}

constexpr std::int64_t RoundUpToAlignment(std::int64_t bytes) {
  constexpr std::int64_t kAlignment = AlignedBuffer<std::byte>::kAlignment;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Where the next of a tensor's `values` goes.
struct ValueCursor {
  DataType type;
  std::byte* next;

  void Append(float value) {
    const bool truth = value != 0;
    const std::size_t size = type == DataType::kBool ? sizeof(truth) : sizeof(value);
    std::memcpy(next, type == DataType::kBool ? static_cast<const void*>(&truth) : &value, size);
    next += size;
  }
};

// Reads the message once, however many tensors there are: a caller decides what a pass costs.
void GatherValues(const WireBytes& bytes, absl::Span<const FieldPath> paths, absl::Span<ValueCursor> cursors) {
  VisitFields(WireReader(bytes), paths, [&](std::size_t i, const WireReader& reader, const WireField& field) {
    VisitFloats(reader, field, [&](float value) { cursors[i].Append(value); });
  });
}

}  // namespace

std::string ShapeText(absl::Span<const std::int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<InputTensor> CheckTensor(const RawTensor& raw, const TensorRule& rule) {
  InputTensor tensor;
  if (!raw.present) return tensor;
  if (absl::Status status = CheckType(raw, rule); !status.ok()) return status;
  if (absl::Status status = CheckRank(raw, rule); !status.ok()) return status;
  const absl::StatusOr<std::int64_t> elements = CheckAxes(raw, rule);
  if (!elements.ok()) return elements.status();
  if (absl::Status status = CheckContents(raw, rule, *elements); !status.ok()) return status;
  tensor.rule_ = &rule;
  tensor.rank_ = static_cast<int>(raw.rank);
  tensor.shape_ = raw.shape;
  tensor.num_elements_ = *elements;
  tensor.data_ = raw.data;
  tensor.memory_ = kPlaceholder;
  return tensor;
}

std::int64_t GatheredBytes(absl::Span<InputTensor* const> tensors) {
  std::int64_t total = 0;
  for (const InputTensor* tensor : tensors) {
    if (*tensor) total += RoundUpToAlignment(tensor->num_bytes());
  }
  return total;
}

AlignedBuffer<std::byte> GatherTensors(const WireBytes& bytes, absl::Span<InputTensor* const> tensors) {
  AlignedBuffer<std::byte> memory(GatheredBytes(tensors));
  std::vector<FieldPath> paths;
  std::vector<ValueCursor> cursors;
  std::byte* next = memory.data();
  for (InputTensor* tensor : tensors) {
    if (!*tensor) continue;
    tensor->memory_ = next;
    if (tensor->from_values()) {
      paths.push_back(tensor->rule_->path / v1::Tensor::kValuesFieldNumber);
      cursors.push_back({tensor->rule_->type, next});
    } else {
      bytes.Copy(tensor->data_, next);
    }
    next += RoundUpToAlignment(tensor->num_bytes());
  }
  if (!paths.empty()) GatherValues(bytes, paths, absl::MakeSpan(cursors));
  return memory;
}

}  // namespace attend::server
