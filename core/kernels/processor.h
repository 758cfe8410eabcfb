// Which processor this is.
//
// May be called concurrently.
#ifndef ATTEND_CORE_KERNELS_PROCESSOR_H_
#define ATTEND_CORE_KERNELS_PROCESSOR_H_

#include <string_view>

namespace attend {

// A processor as CPUID names it: `vendor` such as AuthenticAMD; family and model with their extensions.
struct Processor {
  std::string_view vendor;
  int family = 0;
  int model = 0;
  bool has_avx512_bf16 = false;  // By CPUID; AVX-512 itself is asked for with the instruction set.
};

// Without a name where there is no CPUID.
const Processor& ThisProcessor();

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_PROCESSOR_H_
