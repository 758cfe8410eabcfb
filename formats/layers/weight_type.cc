#include "formats/layers/weight_type.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace attend::formats {
namespace {

template <typename T>
T Load(const void* numbers, std::int64_t i) {
  T number;
  std::memcpy(&number, static_cast<const std::uint8_t*>(numbers) + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return number;
}

float FromBits(std::uint32_t bits) {
  float number = 0;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

float FromFloat16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16, exponent = half >> 10 & 31U, fraction = half & 0x3ffU;
  if (exponent == 31) return FromBits(sign | 0x7f800000U | fraction << 13);
  if (exponent > 0) return FromBits(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = std::ldexp(static_cast<float>(fraction), -24);
  return sign != 0 ? -small : small;
}

}  // namespace

std::int64_t SizeOf(WeightType type) {
  switch (type) {
    case WeightType::kFloat32: return 4;
    case WeightType::kFloat64: return 8;
    default: return 2;
  }
}

std::optional<WeightType> WeightTypeOf(std::string_view dtype) {
  if (dtype == "F32") return WeightType::kFloat32;
  if (dtype == "F64") return WeightType::kFloat64;
  if (dtype == "F16") return WeightType::kFloat16;
  if (dtype == "BF16") return WeightType::kBFloat16;
  return std::nullopt;
}

float FloatAt(const void* numbers, WeightType type, std::int64_t i) {
  switch (type) {
    case WeightType::kFloat32: return Load<float>(numbers, i);
    case WeightType::kFloat64: return static_cast<float>(Load<double>(numbers, i));
    case WeightType::kFloat16: return FromFloat16(Load<std::uint16_t>(numbers, i));
    case WeightType::kBFloat16: break;
  }
  return FromBits(std::uint32_t{Load<std::uint16_t>(numbers, i)} << 16);
}

bool IsFloatAt(const void* numbers, WeightType type, std::int64_t i) {
  if (type != WeightType::kFloat64) return true;
  const auto number = Load<double>(numbers, i);
  if (!std::isfinite(number)) return true;
  return std::abs(number) <= double{std::numeric_limits<float>::max()} && double{static_cast<float>(number)} == number;
}

}  // namespace attend::formats
