// Element types of tensors, as the core knows them.
#ifndef ATTEND_CORE_TENSOR_DATA_TYPE_H_
#define ATTEND_CORE_TENSOR_DATA_TYPE_H_

#include <cstdint>
#include <string_view>

namespace attend {

// kInt8 is for keys and values alone, beside a scale for each of their rows (SdpaProblem); requests cannot name it.
enum class DataType : std::uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16, kBool, kInt8 };

// 16-bit numbers as they are stored; arithmetic uses float.
struct Float16 {
  std::uint16_t bits;  // IEEE 754 binary16.
};
struct BFloat16 {
  std::uint16_t bits;  // The upper half of an IEEE 754 binary32.
};

// The DataType of a C++ type.
template <typename T>
inline constexpr DataType kDataTypeOf = DataType::kFloat32;
template <>
inline constexpr DataType kDataTypeOf<double> = DataType::kFloat64;
template <>
inline constexpr DataType kDataTypeOf<Float16> = DataType::kFloat16;
template <>
inline constexpr DataType kDataTypeOf<BFloat16> = DataType::kBFloat16;
template <>
inline constexpr DataType kDataTypeOf<std::uint8_t> = DataType::kBool;
template <>
inline constexpr DataType kDataTypeOf<std::int8_t> = DataType::kInt8;

// Whether tensors of this type can be attended over as they are, without scales.
constexpr bool IsFloatingPoint(DataType type) { return type != DataType::kBool && type != DataType::kInt8; }

// The size of one element in bytes: 4, 8, 2, 2, 1, 1.
constexpr std::int64_t ElementSize(DataType type) {
  switch (type) {
    case DataType::kFloat32: return 4;
    case DataType::kFloat64: return 8;
    case DataType::kFloat16:
    case DataType::kBFloat16: return 2;
    case DataType::kBool:
    case DataType::kInt8: return 1;
  }
  return 0;
}

// The name used in messages: `FLOAT32`, `FLOAT64`, `FLOAT16`, `BFLOAT16`, `BOOL`, `INT8`.
constexpr std::string_view DataTypeName(DataType type) {
  switch (type) {
    case DataType::kFloat32: return "FLOAT32";
    case DataType::kFloat64: return "FLOAT64";
    case DataType::kFloat16: return "FLOAT16";
    case DataType::kBFloat16: return "BFLOAT16";
    case DataType::kBool: return "BOOL";
    case DataType::kInt8: return "INT8";
  }
  return "UNKNOWN";
}

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_DATA_TYPE_H_
