// Numbers compared as bits: -0 is not 0, and a NaN is itself.
#ifndef ATTEND_TESTS_SUPPORT_SAME_BITS_H_
#define ATTEND_TESTS_SUPPORT_SAME_BITS_H_

#include <gtest/gtest.h>

#include <cstring>
#include <sstream>

#include "absl/types/span.h"

namespace attend::testing {

// Succeeds when both hold the same bits; otherwise says how many elements differ, and the first of them.
inline ::testing::AssertionResult SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " elements against " << b.size();
  std::size_t differing = 0, first = 0;
  for (std::size_t i = a.size(); i-- > 0;) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) ++differing, first = i;
  }
  if (differing == 0) return ::testing::AssertionSuccess();
  std::ostringstream values;
  values.precision(9);
  values << a[first] << " against " << b[first];
  return ::testing::AssertionFailure() << differing << " of " << a.size() << " elements differ, the first at " << first
                                       << ": " << values.str();
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_SAME_BITS_H_
