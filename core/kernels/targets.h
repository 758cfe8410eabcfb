// Which instruction sets the kernels are compiled for, and how to name one of them. Included first by every kernel
// source, before Highway.
#ifndef ATTEND_CORE_KERNELS_TARGETS_H_
#define ATTEND_CORE_KERNELS_TARGETS_H_

// The plainest target stays in although a better one always exists on today's machines: it is what runs without SSE4.
#define HWY_COMPILE_ALL_ATTAINABLE
// In between the sets that have names here, or of unknown vector length.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#include "hwy/detect_targets.h"

#if HWY_TARGETS & HWY_AVX3
#define ATTEND_CASE_AVX512(F)   \
  case InstructionSet::kAvx512: \
    return N_AVX3::F();
#else
#define ATTEND_CASE_AVX512(F)
#endif
#if HWY_TARGETS & HWY_AVX2
#define ATTEND_CASE_AVX2(F)   \
  case InstructionSet::kAvx2: \
    return N_AVX2::F();
#else
#define ATTEND_CASE_AVX2(F)
#endif
#if HWY_TARGETS & HWY_SSE4
#define ATTEND_CASE_SSE4(F)   \
  case InstructionSet::kSse4: \
    return N_SSE4::F();
#else
#define ATTEND_CASE_SSE4(F)
#endif
#if HWY_TARGETS & HWY_NEON
#define ATTEND_CASE_NEON(F)   \
  case InstructionSet::kNeon: \
    return N_NEON::F();
#else
#define ATTEND_CASE_NEON(F)
#endif
#if HWY_TARGETS & HWY_EMU128
#define ATTEND_PLAINEST N_EMU128
#else
#define ATTEND_PLAINEST N_SCALAR
#endif

// The body of a function that returns F() compiled for InstructionSet `set`.
#define ATTEND_RETURN_FOR(set, F)         \
  switch (set) {                          \
    ATTEND_CASE_AVX512(F)                 \
    ATTEND_CASE_AVX2(F)                   \
    ATTEND_CASE_SSE4(F)                   \
    ATTEND_CASE_NEON(F)                   \
    default: return ATTEND_PLAINEST::F(); \
  }

// The address of what F() compiled for AVX-512 returns, or null where that is not compiled.
#if HWY_TARGETS & HWY_AVX3
#define ATTEND_AVX512_OR_NULL(F) (&N_AVX3::F())
#else
#define ATTEND_AVX512_OR_NULL(F) nullptr
#endif

#endif  // ATTEND_CORE_KERNELS_TARGETS_H_
