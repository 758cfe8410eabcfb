// Element types of tensors, as the core knows them.
#ifndef ATTEND_CORE_TENSOR_DATA_TYPE_H_
#define ATTEND_CORE_TENSOR_DATA_TYPE_H_

#include <cstdint>
#include <string_view>

namespace attend {

enum class DataType : std::uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16, kBool };

// The size of one element in bytes: 4, 8, 2, 2, 1.
constexpr std::int64_t ElementSize(DataType type) {
  switch (type) {
    case DataType::kFloat32: return 4;
    case DataType::kFloat64: return 8;
    case DataType::kFloat16:
    case DataType::kBFloat16: return 2;
    case DataType::kBool: return 1;
  }
  return 0;
}

// The name used in messages: `FLOAT32`, `FLOAT64`, `FLOAT16`, `BFLOAT16`, `BOOL`.
constexpr std::string_view DataTypeName(DataType type) {
  switch (type) {
    case DataType::kFloat32: return "FLOAT32";
    case DataType::kFloat64: return "FLOAT64";
    case DataType::kFloat16: return "FLOAT16";
    case DataType::kBFloat16: return "BFLOAT16";
    case DataType::kBool: return "BOOL";
  }
  return "UNKNOWN";
}

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_DATA_TYPE_H_
