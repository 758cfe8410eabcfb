// The types of numbers that weights may have.
#ifndef ATTEND_FORMATS_LAYERS_WEIGHT_TYPE_H_
#define ATTEND_FORMATS_LAYERS_WEIGHT_TYPE_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace attend::formats {

enum class WeightType : std::uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

// Bytes of one number. Pure.
std::int64_t SizeOf(WeightType type);

// By its name in a .safetensors file (`F32`, `BF16`); nothing for types that cannot be computed with. Pure.
std::optional<WeightType> WeightTypeOf(std::string_view dtype);

// Number `i` of an array that may lie at any address. Exact, but for FLOAT64, which is rounded. Pure.
float FloatAt(const void* numbers, WeightType type, std::int64_t i);

// Whether FloatAt gives number `i` exactly, or NaN for NaN. Pure.
bool IsFloatAt(const void* numbers, WeightType type, std::int64_t i);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_WEIGHT_TYPE_H_
