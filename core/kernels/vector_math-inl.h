// exp2 and tanh in vector registers, and loads of less than a vector. Included once per instruction set.
//
// Every function is made of element-wise operations only, so an element's bits do not depend on its lane.
#include "hwy/highway.h"

#if defined(ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
#undef ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
#else
#define ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/kernels/kernel_table.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using std::int64_t;

using FloatTag = hn::ScalableTag<float>;
using Uint32Tag = hn::RebindToUnsigned<FloatTag>;
using Vec = hn::Vec<FloatTag>;
constexpr int64_t kLanes = HWY_LANES(float);
constexpr float kInfinity = std::numeric_limits<float>::infinity();

HWY_INLINE Vec Broadcast(float x) { return hn::Set(FloatTag(), x); }

// 2^x for x in [-infinity, 128): relative error below 3e-7, exactly 1 at 0, exactly 0 below -126 (no denormals, so no
// slow path in the hardware), NaN for NaN. 2^n comes from adding 1.5 * 2^23 + 127, which leaves n + 127 in the low
// bits; 2^f on [-1/2, 1/2] is a minimax polynomial of degree 5 with constant term 1.
HWY_INLINE Vec Exp2(Vec x) {
  const FloatTag d;
  const Uint32Tag du;
  const Vec magic = Broadcast(12583039.0f);
  const Vec t = hn::Add(x, magic);
  const Vec f = hn::Sub(x, hn::Sub(t, magic));
  Vec p = hn::MulAdd(Broadcast(0.00132647145f), f, Broadcast(0.00967150927f));
  p = hn::MulAdd(p, f, Broadcast(0.0555073358f));
  p = hn::MulAdd(p, f, Broadcast(0.240222424f));
  p = hn::MulAdd(p, f, Broadcast(0.693147004f));
  p = hn::MulAdd(p, f, Broadcast(1.0f));
  const Vec power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t)));
  return hn::IfThenZeroElse(hn::Lt(x, Broadcast(-126.0f)), hn::Mul(p, power));
}

// tanh(x) to about 2e-7 relative: an odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel.
HWY_INLINE Vec Tanh(Vec x) {
  const Vec magnitude = hn::Abs(x);
  const Vec x2 = hn::Mul(x, x);
  // Minimax of (tanh(x) - x) / x^3 in x^2 on [0, 0.625].
  Vec small = Broadcast(-0.00570498872745f);
  small = hn::MulAdd(small, x2, Broadcast(0.0206390887954f));
  small = hn::MulAdd(small, x2, Broadcast(-0.0537397155531f));
  small = hn::MulAdd(small, x2, Broadcast(0.133314422036f));
  small = hn::MulAdd(small, x2, Broadcast(-0.333332819422f));
  small = hn::MulAdd(hn::Mul(small, x2), x, x);
  // Beyond 10 the answer is 1 in float32. Min keeps a NaN that is its second operand on x86; the blend below does the
  // rest elsewhere.
  const Vec e = Exp2(hn::Mul(hn::Min(Broadcast(10.0f), magnitude), Broadcast(2 * kLog2E)));
  const Vec large = hn::Sub(Broadcast(1.0f), hn::Div(Broadcast(2.0f), hn::Add(e, Broadcast(1.0f))));
  const Vec tanh = hn::IfThenElse(hn::Lt(magnitude, Broadcast(0.625f)), small, hn::CopySign(large, x));
  return hn::IfThenElse(hn::Eq(x, x), tanh, x);
}

// m, or 0 where m is -infinity: something to subtract from scores without making NaN of -infinity.
HWY_INLINE Vec FiniteMaximum(Vec m) { return hn::IfThenZeroElse(hn::Eq(m, Broadcast(-kInfinity)), m); }

// The first `count` of kLanes elements at `from`; zeros behind. Reads nothing beyond them.
HWY_INLINE Vec LoadFirst(const float* from, int64_t count) {
  if (count >= kLanes) return hn::LoadU(FloatTag(), from);
  HWY_ALIGN float padded[kLanes] = {};
  if (count > 0) std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(float));
  return hn::Load(FloatTag(), padded);
}

// Writes the first `count` elements of v and nothing beyond.
HWY_INLINE void StoreFirst(Vec v, float* to, int64_t count) {
  if (count >= kLanes) {
    hn::StoreU(v, FloatTag(), to);
    return;
  }
  HWY_ALIGN float padded[kLanes];
  hn::Store(v, FloatTag(), padded);
  if (count > 0) std::memcpy(to, padded, static_cast<size_t>(count) * sizeof(float));
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_VECTOR_MATH_INL_H_
