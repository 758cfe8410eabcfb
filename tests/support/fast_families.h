// Tests that run once for each family of fast kernels.
#ifndef ATTEND_TESTS_SUPPORT_FAST_FAMILIES_H_
#define ATTEND_TESTS_SUPPORT_FAST_FAMILIES_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/kernels/fast_kernels.h"

namespace attend::testing {

// Of each family that this machine has; of kNone where it has none.
class ForEachFastFamily : public ::testing::TestWithParam<FastKernels> {
 protected:
  static FastKernels Here() { return GetParam(); }
};

inline std::vector<FastKernels> FastFamiliesHere() {
  const std::vector<FastKernels> families = SupportedFastKernels(BestInstructionSet());
  return families.empty() ? std::vector<FastKernels>{FastKernels::kNone} : families;
}

inline std::string NameOfFamily(const ::testing::TestParamInfo<FastKernels>& test) {
  switch (test.param) {
    case FastKernels::kAvx512Amx: return "Amx";
    case FastKernels::kAvx512Bf16: return "Bf16";
    case FastKernels::kNone: break;
  }
  return "None";
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_FAST_FAMILIES_H_
