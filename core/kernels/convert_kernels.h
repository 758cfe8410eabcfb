// Between float and the types that numbers are stored in.
#ifndef ATTEND_CORE_KERNELS_CONVERT_KERNELS_H_
#define ATTEND_CORE_KERNELS_CONVERT_KERNELS_H_

#include <cstdint>

#include "core/kernels/instruction_set.h"
#include "core/tensor/data_type.h"

namespace attend {

// `type` is FLOAT32, FLOAT16 or BFLOAT16. Each number by itself, so with the same bits for every instruction set. Pure;
// may be called concurrently on different memory. Memory of 16-bit numbers needs their alignment alone.
struct ConvertKernels {
  // to[i] = from[i], which is exact. A NaN stays one.
  void (*widen)(DataType type, const void* from, std::int64_t count, float* to);
  // to[i] = from[i] rounded to the nearest number of `type`, ties to even: beyond the largest to infinity, below the
  // smallest through subnormal numbers to zero. A NaN stays one.
  void (*narrow)(DataType type, const float* from, std::int64_t count, void* to);
};

// REQUIRES: `set` is one of SupportedInstructionSets().
const ConvertKernels& ConvertKernelsFor(InstructionSet set);

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_CONVERT_KERNELS_H_
