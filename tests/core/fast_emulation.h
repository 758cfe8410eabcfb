// The arithmetic of the kernels of PRECISION_FAST, one number at a time and without their instructions, so that
// machines without them check the recorded bits too.
#ifndef ATTEND_TESTS_CORE_FAST_EMULATION_H_
#define ATTEND_TESTS_CORE_FAST_EMULATION_H_

#include <cstdint>
#include <vector>

#include "core/kernels/fast_kernels.h"
#include "tests/support/layer_case.h"
#include "tests/support/sdpa_case.h"

namespace attend::testing {

// Outputs in FLOAT32 of the case's problem with query, key and value rounded to BFLOAT16. REQUIRES: of the options,
// only the causal mask is set; at most kKeyChunk keys; an even head_dim.
std::vector<double> EmulatedSdpa(const SdpaCase& c, FastKernels family);

// Output, query, key and value of a self-attention layer in BFLOAT16, one after the other, as LayerResult has them.
// REQUIRES: neither norms nor rotary embedding nor biases, an even embed; otherwise as above.
std::vector<double> EmulatedLayer(const LayerCase& c, FastKernels family);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_CORE_FAST_EMULATION_H_
