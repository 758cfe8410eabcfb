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
  bool has_amx_bf16 = false;     // By CPUID, and the operating system keeps the tile registers of threads apart.
};

// Without a name where there is no CPUID.
const Processor& ThisProcessor();

// Whether this process may use tile registers. The first call asks Linux, for all threads of the process and what it
// forks, but not for programs it starts; Linux then saves the registers of a thread that uses them. It refuses where a
// thread has an alternate signal stack without room for them, and from then on such stacks. REQUIRES: has_amx_bf16.
bool MayUseTiles();

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_PROCESSOR_H_
