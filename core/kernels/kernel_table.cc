// The kernels of each instruction set, and its conversions (convert-inl.h) as plain functions.
#include "core/kernels/kernel_table.h"

#include <array>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/kernel_table.cc"
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
      [](DataType type, const float* from, int64_t count, void* to) { Narrow(type, from, count, to); },
      [](const std::int8_t* from, int64_t count, float scale, float* to) { Dequantize(from, count, scale, to); }};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend {
namespace {

constexpr int kNumSets = 5;

KernelTable MakeTable(InstructionSet set) {
  return {QueryLaneKernels(set), KeyLaneKernels(set), LinearKernelsFor(set), ConvertKernelsFor(set)};
}

}  // namespace

const ConvertKernels& ConvertKernelsFor(InstructionSet set) { ATTEND_RETURN_FOR(set, ConvertFunctions) }

const KernelTable& KernelsFor(InstructionSet set) {
  static const std::array<KernelTable, kNumSets> tables = [] {
    std::array<KernelTable, kNumSets> made;
    for (int i = 0; i < kNumSets; ++i) made[i] = MakeTable(static_cast<InstructionSet>(i));
    return made;
  }();
  return tables[static_cast<std::size_t>(set)];
}

}  // namespace attend
#endif
