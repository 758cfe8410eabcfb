#include "core/kernels/kernel_table.h"

#include <array>

namespace attend {
namespace {

constexpr int kNumSets = 5;

KernelTable MakeTable(InstructionSet set) {
  return {QueryLaneKernels(set), KeyLaneKernels(set), LinearKernelsFor(set), ConvertKernelsFor(set)};
}

}  // namespace

const KernelTable& KernelsFor(InstructionSet set) {
  static const std::array<KernelTable, kNumSets> tables = [] {
    std::array<KernelTable, kNumSets> made;
    for (int i = 0; i < kNumSets; ++i) made[i] = MakeTable(static_cast<InstructionSet>(i));
    return made;
  }();
  return tables[static_cast<std::size_t>(set)];
}

}  // namespace attend
