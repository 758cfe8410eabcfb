// The conversions of convert-inl.h for one instruction set, as plain functions.
#include "core/kernels/convert_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/convert.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/kernels/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {

const ConvertKernels& ConvertFunctions() {
  static constexpr ConvertKernels kKernels = {
      [](DataType type, const void* from, int64_t count, float* to) { Widen(type, from, count, to); },
      [](DataType type, const float* from, int64_t count, void* to) { Narrow(type, from, count, to); }};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend {
const ConvertKernels& ConvertKernelsFor(InstructionSet set) { ATTEND_RETURN_FOR(set, ConvertFunctions) }
}  // namespace attend
#endif
