// Element types of client-side tensors: everything that .npy and .safetensors files hold, of which the service speaks
// a part.
#ifndef ATTEND_CLIENT_LIB_ELEMENT_TYPE_H_
#define ATTEND_CLIENT_LIB_ELEMENT_TYPE_H_

#include <cstdint>
#include <string_view>

namespace attend::client {

enum class ElementType : std::uint8_t {
  kFloat32,
  kFloat64,
  kFloat16,   // IEEE 754 binary16.
  kBFloat16,  // The upper half of a binary32.
  kBool,      // One byte: 0 is false, anything else true.
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
};

// The size of one element in bytes.
constexpr std::int64_t ElementSize(ElementType type) {
  switch (type) {
    case ElementType::kBool:
    case ElementType::kInt8:
    case ElementType::kUint8: return 1;
    case ElementType::kFloat16:
    case ElementType::kBFloat16:
    case ElementType::kInt16:
    case ElementType::kUint16: return 2;
    case ElementType::kFloat32:
    case ElementType::kInt32:
    case ElementType::kUint32: return 4;
    case ElementType::kFloat64:
    case ElementType::kInt64:
    case ElementType::kUint64: return 8;
  }
  return 0;
}

// Whether the service computes with this type.
constexpr bool IsFloatingPoint(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
    case ElementType::kFloat64:
    case ElementType::kFloat16:
    case ElementType::kBFloat16: return true;
    default: return false;
  }
}

// The name used in messages and tables: `float32`, `bool`, ...
constexpr std::string_view ElementTypeName(ElementType type) {
  switch (type) {
    case ElementType::kFloat32: return "float32";
    case ElementType::kFloat64: return "float64";
    case ElementType::kFloat16: return "float16";
    case ElementType::kBFloat16: return "bfloat16";
    case ElementType::kBool: return "bool";
    case ElementType::kInt8: return "int8";
    case ElementType::kInt16: return "int16";
    case ElementType::kInt32: return "int32";
    case ElementType::kInt64: return "int64";
    case ElementType::kUint8: return "uint8";
    case ElementType::kUint16: return "uint16";
    case ElementType::kUint32: return "uint32";
    case ElementType::kUint64: return "uint64";
  }
  return "unknown";
}

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_ELEMENT_TYPE_H_
