#include "client/lib/tensor.h"

#include <Eigen/Core>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace attend::client {
namespace {

// Calls `visit` with a value of the C++ type that stores `type`.
template <typename Visitor>
auto VisitType(ElementType type, const Visitor& visit) {
  switch (type) {
    case ElementType::kFloat64: return visit(double{});
    case ElementType::kFloat16: return visit(Eigen::half{});
    case ElementType::kBFloat16: return visit(Eigen::bfloat16{});
    case ElementType::kBool:
    case ElementType::kUint8: return visit(std::uint8_t{});
    case ElementType::kInt8: return visit(std::int8_t{});
    case ElementType::kInt16: return visit(std::int16_t{});
    case ElementType::kInt32: return visit(std::int32_t{});
    case ElementType::kInt64: return visit(std::int64_t{});
    case ElementType::kUint16: return visit(std::uint16_t{});
    case ElementType::kUint32: return visit(std::uint32_t{});
    case ElementType::kUint64: return visit(std::uint64_t{});
    case ElementType::kFloat32: break;
  }
  return visit(float{});
}

// The float that rounds to 16 bits as `value` itself would: of the two around it the odd one (rounding to odd, Boldo &
// Melquiond 2008, IEEE Trans. Computers 57(4)). Rounding to the nearest first could end on a tie that `value` is not.
float RoundToOdd(double value) {
  const auto nearest = static_cast<float>(value);
  if (std::isnan(value) || static_cast<double>(nearest) == value) return nearest;
  std::uint32_t bits = 0;
  std::memcpy(&bits, &nearest, sizeof(bits));
  if (bits % 2 == 1) return nearest;
  return std::nextafter(nearest, value > nearest ? HUGE_VALF : -HUGE_VALF);
}

template <typename To, typename T>
To ConvertNumber(T value) {
  if constexpr (std::is_same_v<To, Eigen::half> || std::is_same_v<To, Eigen::bfloat16>) {
    return static_cast<To>(RoundToOdd(static_cast<double>(value)));
  } else {
    return static_cast<To>(value);
  }
}

// Converts each of the T in `bytes`. Bytes of a string have no alignment to promise, so each element is copied.
template <typename To, typename T>
void Convert(const std::string& bytes, bool is_bool, void* out) {
  const std::size_t count = bytes.size() / sizeof(T);
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    const To converted = ConvertNumber<To>(is_bool ? T(value != T(0)) : value);
    std::memcpy(static_cast<char*>(out) + i * sizeof(To), &converted, sizeof(To));
  }
}

// The least magnitude that rounds to infinity: half a unit in the last place beyond the largest number of the type.
double LeastInfinite(ElementType type) {
  switch (type) {
    case ElementType::kFloat64: return std::numeric_limits<double>::infinity();
    case ElementType::kFloat16: return 65520;
    case ElementType::kBFloat16: return 0x1.ffp127;
    default: return 0x1.ffffffp127;
  }
}

v1::DataType ToProtoType(ElementType type) {
  switch (type) {
    case ElementType::kFloat32: return v1::DATA_TYPE_FLOAT32;
    case ElementType::kFloat64: return v1::DATA_TYPE_FLOAT64;
    case ElementType::kFloat16: return v1::DATA_TYPE_FLOAT16;
    case ElementType::kBFloat16: return v1::DATA_TYPE_BFLOAT16;
    case ElementType::kBool: return v1::DATA_TYPE_BOOL;
    default: return v1::DATA_TYPE_UNSPECIFIED;
  }
}

std::optional<ElementType> FromProtoType(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_UNSPECIFIED:
    case v1::DATA_TYPE_FLOAT32: return ElementType::kFloat32;
    case v1::DATA_TYPE_FLOAT64: return ElementType::kFloat64;
    case v1::DATA_TYPE_FLOAT16: return ElementType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16: return ElementType::kBFloat16;
    case v1::DATA_TYPE_BOOL: return ElementType::kBool;
    case v1::DATA_TYPE_INT32: return ElementType::kInt32;
    default: return std::nullopt;
  }
}

// Whether `value` is a T; floating-point types round it.
template <typename T>
bool Holds(float value) {
  if constexpr (!std::is_integral_v<T>) {
    return true;
  } else {
    const auto least = static_cast<float>(std::numeric_limits<T>::min());  // A power of two, as is what lies beyond.
    return value >= least && value < std::ldexp(1.0F, std::numeric_limits<T>::digits) && std::trunc(value) == value;
  }
}

// The bytes of `values` in the form of `type`.
template <typename Values>
absl::StatusOr<std::string> EncodeValues(ElementType type, const Values& values) {
  std::string bytes(static_cast<std::size_t>(values.size()) * ElementSize(type), '\0');
  return VisitType(type, [&](auto zero) -> absl::StatusOr<std::string> {
    using T = decltype(zero);
    const bool is_bool = type == ElementType::kBool;
    for (int i = 0; i < values.size(); ++i) {
      if (!is_bool && !Holds<T>(values.Get(i))) {
        return absl::InvalidArgumentError(
            absl::StrFormat("values[%d] is %g, which no %s is", i, values.Get(i), ElementTypeName(type)));
      }
      const T value = is_bool ? static_cast<T>(values.Get(i) != 0) : static_cast<T>(values.Get(i));
      std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
    return std::move(bytes);
  });
}

}  // namespace

absl::StatusOr<std::int64_t> CountElements(absl::Span<const std::int64_t> shape, std::int64_t element_size) {
  std::int64_t bytes = element_size;
  bool empty = false;
  for (const std::int64_t axis : shape) {
    if (axis < 0) {
      return absl::InvalidArgumentError(absl::StrCat("the shape ", ShapeString(shape), " has a negative axis"));
    }
    if (axis == 0) empty = true;
    if (axis > 0 && __builtin_mul_overflow(bytes, axis, &bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the shape ", ShapeString(shape), " has more elements than any memory holds"));
    }
  }
  return empty ? 0 : bytes / element_size;
}

std::string ShapeString(absl::Span<const std::int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<Tensor> Tensor::Create(ElementType type, std::vector<std::int64_t> shape, std::string bytes) {
  const absl::StatusOr<std::int64_t> count = CountElements(shape, ElementSize(type));
  if (!count.ok()) return count.status();
  const std::int64_t expected = *count * ElementSize(type);
  if (static_cast<std::int64_t>(bytes.size()) != expected) {
    return absl::InvalidArgumentError(absl::StrFormat("a %s tensor of shape %s has %d bytes, but %d were given",
                                                      ElementTypeName(type), ShapeString(shape), expected,
                                                      bytes.size()));
  }
  return Tensor(type, std::move(shape), std::move(bytes));
}

Tensor Tensor::FromFloats(std::vector<std::int64_t> shape, absl::Span<const float> values) {
  std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  return Tensor(ElementType::kFloat32, std::move(shape), std::move(bytes));
}

absl::StatusOr<Tensor> Tensor::FromProto(v1::Tensor&& proto) {
  const std::optional<ElementType> type = FromProtoType(proto.data_type());
  if (!type.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("data type ", proto.data_type(), " is not known to this client"));
  }
  std::vector<std::int64_t> shape(proto.shape().begin(), proto.shape().end());
  if (proto.values_size() == 0) return Create(*type, std::move(shape), std::move(*proto.mutable_data()));
  absl::StatusOr<std::string> bytes = EncodeValues(*type, proto.values());
  return bytes.ok() ? Create(*type, std::move(shape), *std::move(bytes)) : bytes.status();
}

absl::Status Tensor::MoveTo(v1::Tensor* proto) && {
  const v1::DataType type = ToProtoType(type_);
  if (type == v1::DATA_TYPE_UNSPECIFIED) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the service takes no %s tensors; use one of float32, float64, float16, bfloat16 and bool",
                        ElementTypeName(type_)));
  }
  proto->Clear();
  proto->set_data_type(type);
  proto->mutable_shape()->Assign(shape_.begin(), shape_.end());
  proto->set_data(std::move(bytes_));
  *this = Tensor();
  return absl::OkStatus();
}

Tensor Tensor::ToFloat(ElementType type) && {
  if (type_ == type) return std::move(*this);
  std::string converted(static_cast<std::size_t>(num_elements() * ElementSize(type)), '\0');
  VisitType(type_, [&](auto zero) {
    using T = decltype(zero);
    const bool is_bool = type_ == ElementType::kBool;
    switch (type) {
      case ElementType::kFloat64: return Convert<double, T>(bytes_, is_bool, converted.data());
      case ElementType::kFloat16: return Convert<Eigen::half, T>(bytes_, is_bool, converted.data());
      case ElementType::kBFloat16: return Convert<Eigen::bfloat16, T>(bytes_, is_bool, converted.data());
      default: return Convert<float, T>(bytes_, is_bool, converted.data());
    }
  });
  return Tensor(type, std::move(shape_), std::move(converted));
}

std::optional<std::int64_t> Tensor::FirstBeyond(ElementType type) const {
  const double least = LeastInfinite(type);
  return VisitType(type_, [&](auto zero) -> std::optional<std::int64_t> {
    using T = decltype(zero);
    const std::int64_t count = type_ == type || type_ == ElementType::kBool ? 0 : num_elements();
    for (std::int64_t i = 0; i < count; ++i) {
      T element;
      std::memcpy(&element, bytes_.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
      const auto value = static_cast<double>(element);
      if (std::isfinite(value) && std::abs(value) >= least) return i;
    }
    return std::nullopt;
  });
}

absl::StatusOr<std::vector<std::int64_t>> Tensor::ToInt64() const {
  std::vector<std::int64_t> values(static_cast<std::size_t>(num_elements()));
  const bool integral = VisitType(type_, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_integral_v<T>) Convert<std::int64_t, T>(bytes_, false, values.data());
    return std::is_integral_v<T>;
  });
  if (!integral || type_ == ElementType::kBool) {
    return absl::InvalidArgumentError(absl::StrCat("expected integers, got ", Describe()));
  }
  for (const std::int64_t value : values) {
    if (type_ == ElementType::kUint64 && value < 0) {
      return absl::InvalidArgumentError("a uint64 value is larger than int64 can hold");
    }
  }
  return values;
}

std::vector<double> Tensor::ToDoubles() const {
  std::vector<double> values(static_cast<std::size_t>(num_elements()));
  VisitType(type_,
            [&](auto zero) { Convert<double, decltype(zero)>(bytes_, type_ == ElementType::kBool, values.data()); });
  return values;
}

absl::Span<const float> Tensor::floats() const {
  return {reinterpret_cast<const float*>(bytes_.data()), bytes_.size() / sizeof(float)};
}

std::string Tensor::Describe() const { return absl::StrFormat("%s %s", ElementTypeName(type_), ShapeString(shape_)); }

}  // namespace attend::client
