#include "core/kernels/processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#endif

namespace attend {

#if defined(__x86_64__)
namespace {

struct Registers {
  unsigned int a = 0, b = 0, c = 0, d = 0;
};

Registers Cpuid(unsigned int leaf, unsigned int subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

// Whether the operating system saves the state of tile registers with that of threads: its configuration and its data.
bool SavesTiles(const Registers& leaf1) {
  const bool has_xgetbv = (leaf1.c >> 27 & 1) != 0;
  if (!has_xgetbv) return false;
  unsigned int low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low >> 17 & 3) == 3;
}

bool HasAmxBf16(const Registers& leaf1) {
  const unsigned int features = Cpuid(7, 0).d;
  return (features >> 22 & 1) != 0 && (features >> 24 & 1) != 0 && SavesTiles(leaf1);
}

// Owns the name that Processor views.
struct Named {
  Named() {
    const Registers leaf0 = Cpuid(0, 0), leaf1 = Cpuid(1, 0), leaf7 = Cpuid(7, 1);
    std::memcpy(name, &leaf0.b, 4);
    std::memcpy(name + 4, &leaf0.d, 4);
    std::memcpy(name + 8, &leaf0.c, 4);
    const int base_family = static_cast<int>(leaf1.a >> 8 & 0xf);
    processor.vendor = {name, sizeof(name)};
    processor.family = base_family + (base_family == 15 ? static_cast<int>(leaf1.a >> 20 & 0xff) : 0);
    processor.model = static_cast<int>(leaf1.a >> 4 & 0xf) | static_cast<int>(leaf1.a >> 12 & 0xf0);
    processor.has_avx512_bf16 = (leaf7.a >> 5 & 1) != 0;
    processor.has_amx_bf16 = HasAmxBf16(leaf1);
  }
  char name[12];
  Processor processor;
};

}  // namespace

const Processor& ThisProcessor() {
  static const Named here;
  return here.processor;
}

bool MayUseTiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of asm/prctl.h of Linux 5.16.
  static const bool may = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return may;
}
#else
const Processor& ThisProcessor() {
  static constexpr Processor kOther;
  return kOther;
}

bool MayUseTiles() { return false; }
#endif

}  // namespace attend
