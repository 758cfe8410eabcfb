// INT8 to float; FLOAT16 and BFLOAT16 to float and back, from integer operations and one product or sum each where no
// instruction does the same: Highway 1.0.3 truncates where it converts to bfloat16, and what it does for float16
// depends on the instruction set. Included once per instruction set.
#include "core/kernels/vector_math-inl.h"

#if defined(ATTEND_CORE_KERNELS_CONVERT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_CONVERT_INL_H_
#undef ATTEND_CORE_KERNELS_CONVERT_INL_H_
#else
#define ATTEND_CORE_KERNELS_CONVERT_INL_H_
#endif

#include <cstring>

#include "core/tensor/data_type.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {

using Uint16Tag = hn::Rebind<std::uint16_t, FloatTag>;
using Int32Tag = hn::RebindToSigned<FloatTag>;
using Bits = hn::Vec<Uint32Tag>;
using Halves = hn::Vec<Uint16Tag>;
using Int8Tag = hn::Rebind<std::int8_t, FloatTag>;

HWY_INLINE Bits SetBits(std::uint32_t bits) { return hn::Set(Uint32Tag(), bits); }

HWY_INLINE Vec WidenBFloat16(Halves halves) {
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(Uint32Tag(), halves)));
}

// The number's exponent and mantissa, moved to where float has them, make it 2^-112 times as large as it is; the
// product puts that right, for subnormal numbers too. Infinity and NaN then miss the upper bits of their exponent.
HWY_INLINE Vec WidenFloat16(Halves halves) {
#if HWY_TARGET == HWY_AVX3
  return Vec{_mm512_cvtph_ps(halves.raw)};
#elif HWY_TARGET == HWY_AVX2
  return Vec{_mm256_cvtph_ps(halves.raw)};
#else
  const FloatTag d;
  const Bits all = hn::PromoteTo(Uint32Tag(), halves);
  const Bits magnitude = hn::ShiftLeft<13>(hn::And(all, SetBits(0x7fff)));
  const Bits sign = hn::ShiftLeft<16>(hn::And(all, SetBits(0x8000)));
  const Bits scaled = hn::BitCast(Uint32Tag(), hn::Mul(hn::BitCast(d, magnitude), Broadcast(5.192296858534828e33f)));
  const Bits special =
      hn::And(hn::VecFromMask(Uint32Tag(), hn::Gt(magnitude, SetBits(0x0f7fffff))), SetBits(0x7f800000));
  return hn::BitCast(d, hn::Or(hn::Or(scaled, special), sign));
#endif
}

HWY_INLINE Vec WidenInt8(hn::Vec<Int8Tag> bytes) { return hn::ConvertTo(FloatTag(), hn::PromoteTo(Int32Tag(), bytes)); }

HWY_INLINE Halves Demote(Bits bits) { return hn::DemoteTo(Uint16Tag(), hn::BitCast(Int32Tag(), bits)); }

HWY_INLINE Halves NarrowToBFloat16(Vec number) {
  const Bits bits = hn::BitCast(Uint32Tag(), number);
  const Bits odd = hn::And(hn::ShiftRight<16>(bits), SetBits(1));
  const Bits rounded = hn::Add(bits, hn::Add(odd, SetBits(0x7fff)));
  const Bits nan = hn::Or(bits, SetBits(0x00400000));
  const auto is_nan = hn::Gt(hn::And(bits, SetBits(0x7fffffff)), SetBits(0x7f800000));
  return Demote(hn::ShiftRight<16>(hn::IfThenElse(is_nan, nan, rounded)));
}

HWY_INLINE Halves NarrowToFloat16(Vec number) {
  const FloatTag d;
  const Bits bits = hn::BitCast(Uint32Tag(), number);
  const Bits magnitude = hn::And(bits, SetBits(0x7fffffff));
  const Bits sign = hn::And(hn::ShiftRight<16>(bits), SetBits(0x8000));
  // Normal numbers: another exponent bias, and 13 bits less. A carry out of the mantissa is right, up to infinity.
  const Bits odd = hn::And(hn::ShiftRight<13>(magnitude), SetBits(1));
  const Bits normal = hn::ShiftRight<13>(hn::Add(magnitude, hn::Add(odd, SetBits(0xc8000fffu))));
  // Below 2^-14 adding 0.5 leaves a subnormal number's mantissa in the lowest bits, rounded by the addition.
  const Vec shifted = hn::Add(hn::BitCast(d, magnitude), Broadcast(0.5f));
  const Bits subnormal = hn::Sub(hn::BitCast(Uint32Tag(), shifted), SetBits(0x3f000000));
  Bits result = hn::IfThenElse(hn::Gt(SetBits(0x38800000), magnitude), subnormal, normal);
  result = hn::IfThenElse(hn::Gt(magnitude, SetBits(0x477fffff)), SetBits(0x7c00), result);  // 65536 and above.
  result = hn::IfThenElse(hn::Gt(magnitude, SetBits(0x7f800000)), SetBits(0x7e00), result);
  return Demote(hn::Or(result, sign));
}

// kLanes numbers at `from`, which need the alignment of one.
HWY_INLINE Vec LoadWide(const float* from) { return hn::LoadU(FloatTag(), from); }
HWY_INLINE Vec LoadWide(const BFloat16* from) { return WidenBFloat16(hn::LoadU(Uint16Tag(), &from->bits)); }
HWY_INLINE Vec LoadWide(const std::int8_t* from) { return WidenInt8(hn::LoadU(Int8Tag(), from)); }
HWY_INLINE Vec LoadWide(const Float16* from) { return WidenFloat16(hn::LoadU(Uint16Tag(), &from->bits)); }

// The first `count` of them; zeros behind. Reads nothing beyond them.
template <typename Narrow>
HWY_INLINE Vec LoadFirst(const Narrow* from, int64_t count) {
  if (count >= kLanes) return LoadWide(from);
  HWY_ALIGN Narrow padded[kLanes] = {};
  if (count > 0) std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(Narrow));
  return LoadWide(padded);
}

// Writes the first `count` of them, rounded, and nothing beyond.
template <Halves kNarrow(Vec), typename Half>
HWY_INLINE void StoreFirstHalves(Vec numbers, Half* to, int64_t count) {
  if (count >= kLanes) return hn::StoreU(kNarrow(numbers), Uint16Tag(), &to->bits);
  HWY_ALIGN Half halves[kLanes];
  hn::Store(kNarrow(numbers), Uint16Tag(), &halves->bits);
  if (count > 0) std::memcpy(to, halves, static_cast<size_t>(count) * sizeof(Half));
}
HWY_INLINE void StoreFirst(Vec numbers, BFloat16* to, int64_t count) {
  StoreFirstHalves<NarrowToBFloat16>(numbers, to, count);
}
HWY_INLINE void StoreFirst(Vec numbers, Float16* to, int64_t count) {
  StoreFirstHalves<NarrowToFloat16>(numbers, to, count);
}

template <Vec kConvert(Halves)>
HWY_INLINE void ConvertVector(const std::uint16_t* from, float* to) {
  hn::StoreU(kConvert(hn::LoadU(Uint16Tag(), from)), FloatTag(), to);
}

template <Halves kConvert(Vec)>
HWY_INLINE void ConvertVector(const float* from, std::uint16_t* to) {
  hn::StoreU(kConvert(hn::LoadU(FloatTag(), from)), Uint16Tag(), to);
}

// What does not fill a vector goes through padded copies.
template <auto kConvert, typename From, typename To>
HWY_INLINE void ConvertAll(const From* from, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) ConvertVector<kConvert>(from + i, to + i);
  if (i >= count) return;
  HWY_ALIGN From padded[kLanes] = {};
  HWY_ALIGN To results[kLanes];
  std::memcpy(padded, from + i, static_cast<size_t>(count - i) * sizeof(From));
  ConvertVector<kConvert>(padded, results);
  std::memcpy(to + i, results, static_cast<size_t>(count - i) * sizeof(To));
}

// What ConvertKernels::widen does.
HWY_INLINE void Widen(DataType type, const void* from, int64_t count, float* to) {
  const auto* halves = static_cast<const std::uint16_t*>(from);
  if (type == DataType::kFloat16) {
    ConvertAll<WidenFloat16>(halves, count, to);
  } else if (type == DataType::kBFloat16) {
    ConvertAll<WidenBFloat16>(halves, count, to);
  } else if (count > 0) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
}

// What ConvertKernels::narrow does.
HWY_INLINE void Narrow(DataType type, const float* from, int64_t count, void* to) {
  auto* halves = static_cast<std::uint16_t*>(to);
  if (type == DataType::kFloat16) {
    ConvertAll<NarrowToFloat16>(from, count, halves);
  } else if (type == DataType::kBFloat16) {
    ConvertAll<NarrowToBFloat16>(from, count, halves);
  } else if (count > 0) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
}

// What ConvertKernels::dequantize does.
HWY_INLINE void Dequantize(const std::int8_t* from, int64_t count, float scale, float* to) {
  const Vec factor = Broadcast(scale);
  for (int64_t i = 0; i < count; i += kLanes) {
    StoreFirst(hn::Mul(LoadFirst(from + i, count - i), factor), to + i, count - i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_CONVERT_INL_H_
