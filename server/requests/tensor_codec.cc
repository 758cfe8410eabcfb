#include "server/requests/tensor_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/base/round.h"
#include "core/kernels/kernel_table.h"
#include "server/wire/rounded.h"

namespace attend::server {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors travel little-endian and are copied as they are");

// What floats() and bools() point to before there is anything.
alignas(64) constexpr std::byte kPlaceholder[64] = {};

absl::string_view Name(DataType type) {
  const std::string_view name = DataTypeName(type);
  return {name.data(), name.size()};
}

constexpr DataType kAllNumbers[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kFloat64};
constexpr DataType kBoolAlone[] = {DataType::kBool};

absl::Span<const DataType> Accepted(TypeRule rule) {
  const absl::Span<const DataType> numbers(kAllNumbers);
  switch (rule) {
    case TypeRule::kNumbers:
    case TypeRule::kWidened: return numbers;
    case TypeRule::kFloat32: return numbers.first(1);
    case TypeRule::kBool: break;
  }
  return kBoolAlone;
}

// The type in memory of a tensor that has `type` on the wire.
DataType InMemory(TypeRule rule, DataType type) {
  return rule == TypeRule::kWidened && ElementSize(type) == 2 ? DataType::kFloat32 : type;
}

absl::StatusOr<DataType> CheckType(const RawTensor& raw, const TensorRule& rule) {
  const absl::Span<const DataType> accepted = Accepted(rule.types);
  const std::optional<DataType> type = FromWire(raw.data_type, accepted.front());
  if (type && std::find(accepted.begin(), accepted.end(), *type) != accepted.end()) return *type;
  const std::string field = absl::StrCat(rule.field, ".data_type");
  const std::string given = v1::DataType_IsValid(raw.data_type)
                                ? v1::DataType_Name(static_cast<v1::DataType>(raw.data_type))
                                : absl::StrCat(raw.data_type, ", which is not a known type");
  const std::string names =
      absl::StrJoin(accepted, ", ", [](std::string* out, DataType t) { absl::StrAppend(out, "DATA_TYPE_", Name(t)); });
  return InvalidField(field, absl::StrCat(field, " is ", given, "; ", rule.field, " must be ",
                                          accepted.size() > 1 ? "one of " : "", names));
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

// Bytes that are too many or too few for the type, but right for another: most often NumPy's float64 sent as FLOAT32.
std::string TypeHint(const RawTensor& raw, const TensorRule& rule, std::int64_t elements) {
  constexpr DataType kCandidates[] = {DataType::kFloat64, DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
  const absl::Span<const DataType> accepted = Accepted(rule.types);
  std::vector<absl::string_view> fitting, settable;
  for (const DataType type : kCandidates) {
    if (raw.data.size() != elements * ElementSize(type)) continue;
    fitting.push_back(Name(type));
    if (std::find(accepted.begin(), accepted.end(), type) != accepted.end()) settable.push_back(Name(type));
  }
  if (fitting.empty()) return "";
  const std::string looks = absl::StrCat("; it looks like ", absl::StrJoin(fitting, " or "));
  if (settable.empty()) return absl::StrCat(looks, ": convert it to ", Name(accepted.front()));
  return absl::StrCat(looks, ": set ", rule.field, ".data_type to DATA_TYPE_",
                      absl::StrJoin(settable, " or DATA_TYPE_"));
}

// The elements, if they are there, are there once, and as many as the shape says.
absl::Status CheckContents(const RawTensor& raw, const TensorRule& rule, DataType type, std::int64_t elements) {
  const auto shape = [&raw] { return ShapeText({raw.shape.data(), static_cast<std::size_t>(raw.rank)}); };
  const std::int64_t bytes = elements * ElementSize(type);
  if (!raw.data.empty() && raw.num_values != 0) {
    return InvalidField(rule.field,
                        absl::StrCat(rule.field, " has both data (", raw.data.size(), " bytes) and values (",
                                     raw.num_values, " numbers); send exactly one of them"));
  }
  if (raw.num_values != 0 && raw.num_values != elements) {
    const std::string field = absl::StrCat(rule.field, ".values");
    return InvalidField(field, absl::StrCat(field, " has ", raw.num_values, " numbers, but ", rule.field, ".shape is ",
                                            shape(), ", which takes ", elements));
  }
  if (!raw.data.empty() && raw.data.size() != bytes) {
    const std::string field = absl::StrCat(rule.field, ".data");
    return InvalidField(field,
                        absl::StrCat(field, " has ", raw.data.size(), " bytes, but ", rule.field, ".shape is ", shape(),
                                     ", which takes ", bytes, " (", elements, " elements of ", ElementSize(type),
                                     " bytes, DATA_TYPE_", Name(type), ")", TypeHint(raw, rule, elements)));
  }
  return absl::OkStatus();
}

// Where the next of a tensor's `values` goes.
struct ValueCursor {
  DataType wire_type;  // What the numbers are rounded to;
  DataType type;       // and how they are kept.
  std::byte* next;
  const ConvertKernels& convert;

  void Append(float value) {
    if (wire_type != type) value = RoundedTo(wire_type, value, convert);
    if (type == DataType::kBool) {
      const bool truth = value != 0;
      std::memcpy(next, &truth, sizeof(truth));
    } else if (type == DataType::kFloat64) {
      const double wide = value;
      std::memcpy(next, &wide, sizeof(wide));
    } else {
      convert.narrow(type, &value, 1, next);
    }
    next += ElementSize(type);
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
  const absl::StatusOr<DataType> type = CheckType(raw, rule);
  if (!type.ok()) return type.status();
  if (absl::Status status = CheckRank(raw, rule); !status.ok()) return status;
  const absl::StatusOr<std::int64_t> elements = CheckAxes(raw, rule);
  if (!elements.ok()) return elements.status();
  if (absl::Status status = CheckContents(raw, rule, *type, *elements); !status.ok()) return status;
  tensor.rule_ = &rule;
  tensor.wire_type_ = *type;
  tensor.type_ = InMemory(rule.types, *type);
  tensor.rank_ = static_cast<int>(raw.rank);
  tensor.shape_ = raw.shape;
  tensor.num_elements_ = *elements;
  tensor.from_values_ = raw.num_values != 0;
  tensor.data_ = raw.data;
  tensor.memory_ = kPlaceholder;
  return tensor;
}

absl::Status CheckTensorInto(const RawTensor& raw, const TensorRule& rule, InputTensor& tensor) {
  if (!raw.present) {
    tensor = InputTensor();
    return absl::OkStatus();
  }
  absl::StatusOr<InputTensor> checked = CheckTensor(raw, rule);
  if (checked.ok()) tensor = *checked;
  return checked.status();
}

absl::Status CheckHaveContents(absl::Span<InputTensor* const> tensors) {
  for (const InputTensor* tensor : tensors) {
    if (!*tensor || tensor->has_contents()) continue;
    const char* field = tensor->rule_->field;
    const std::int64_t elements = tensor->num_elements();
    return InvalidField(
        field, absl::StrCat(field, " has neither data nor values; send ", elements * ElementSize(tensor->wire_type_),
                            " bytes of data or ", elements, " values for its shape ",
                            ShapeText({tensor->shape_.data(), static_cast<std::size_t>(tensor->rank_)})));
  }
  return absl::OkStatus();
}

double GatheredBytes(absl::Span<InputTensor* const> tensors) {
  double total = 0;
  for (const InputTensor* tensor : tensors) {
    if (*tensor) total += static_cast<double>(RoundUp(tensor->num_bytes(), kCacheLine));
  }
  return total;
}

void InputTensor::CopyData(const WireBytes& bytes, const ConvertKernels& convert, std::byte* to) const {
  if (wire_type_ == type_) return bytes.Copy(data_, to);
  std::byte* const narrow = to + (num_bytes() - data_.size());
  bytes.Copy(data_, narrow);
  convert.widen(wire_type_, narrow, num_elements_, reinterpret_cast<float*>(to));
}

AlignedBuffer<std::byte> GatherTensors(const WireBytes& bytes, absl::Span<InputTensor* const> tensors) {
  const ConvertKernels& convert = ConvertKernelsFor(BestInstructionSet());  // All give the same bits.
  AlignedBuffer<std::byte> memory(static_cast<std::int64_t>(GatheredBytes(tensors)));
  std::vector<FieldPath> paths;
  std::vector<ValueCursor> cursors;
  std::byte* next = memory.data();
  for (InputTensor* tensor : tensors) {
    if (!*tensor) continue;
    tensor->memory_ = next;
    if (tensor->from_values()) {
      paths.push_back(tensor->rule_->path / v1::Tensor::kValuesFieldNumber);
      cursors.push_back({tensor->wire_type_, tensor->type_, next, convert});
    } else {
      tensor->CopyData(bytes, convert, next);
    }
    next += RoundUp(tensor->num_bytes(), kCacheLine);
  }
  if (!paths.empty()) GatherValues(bytes, paths, absl::MakeSpan(cursors));
  return memory;
}

}  // namespace attend::server
