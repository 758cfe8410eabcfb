// Enums of attend.v1 and what they are in the core.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_ENUMS_H_
#define ATTEND_SERVER_WIRE_ENUMS_H_

#include <cstdint>
#include <optional>

#include "attend/v1/tensor.pb.h"
#include "core/tensor/data_type.h"

namespace attend::server {

constexpr v1::DataType ToWire(DataType type) {
  switch (type) {
    case DataType::kFloat32: return v1::DATA_TYPE_FLOAT32;
    case DataType::kFloat64: return v1::DATA_TYPE_FLOAT64;
    case DataType::kFloat16: return v1::DATA_TYPE_FLOAT16;
    case DataType::kBFloat16: return v1::DATA_TYPE_BFLOAT16;
    case DataType::kBool:
    case DataType::kInt8: break;  // No tensor of a request or an answer is INT8.
  }
  return v1::DATA_TYPE_BOOL;
}

// `default_type` stands for DATA_TYPE_UNSPECIFIED. Nothing for a type that the core does not have.
constexpr std::optional<DataType> FromWire(std::int32_t type, DataType default_type) {
  switch (type) {
    case v1::DATA_TYPE_UNSPECIFIED: return default_type;
    case v1::DATA_TYPE_FLOAT32: return DataType::kFloat32;
    case v1::DATA_TYPE_FLOAT64: return DataType::kFloat64;
    case v1::DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16: return DataType::kBFloat16;
    case v1::DATA_TYPE_BOOL: return DataType::kBool;
    default: return std::nullopt;
  }
}

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_ENUMS_H_
