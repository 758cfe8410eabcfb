#include "core/kernels/fast_kernels.h"

#include <array>

#include "absl/strings/ascii.h"

namespace attend {
namespace {

// Processors on which a family is faster than EXACT, by measurement. Models from `first_model` to `last_model`.
struct Row {
  std::string_view vendor;
  int family;
  int first_model;
  int last_model;
  FastKernels fast;
};
// Intel's Sapphire and Emerald Rapids take twice as long for VDPBF16PS as for float.
constexpr std::array<Row, 5> kFaster = {{
    {"AuthenticAMD", 25, 0x10, 0x1f, FastKernels::kAvx512Bf16},  // Zen 4: Genoa.
    {"AuthenticAMD", 25, 0x60, 0x7f, FastKernels::kAvx512Bf16},  // Zen 4: Raphael, Phoenix, Hawk Point.
    {"AuthenticAMD", 25, 0xa0, 0xaf, FastKernels::kAvx512Bf16},  // Zen 4c: Bergamo, Siena.
    {"AuthenticAMD", 26, 0x00, 0xff, FastKernels::kAvx512Bf16},  // Zen 5.
    {"GenuineIntel", 6, 0xa7, 0xa7, FastKernels::kAvx512Amx},    // What a hypervisor calls a Xeon with AMX.
}};

bool IsFaster(FastKernels fast, const Processor& processor) {
  for (const Row& row : kFaster) {
    if (row.fast == fast && processor.vendor == row.vendor && processor.family == row.family &&
        processor.model >= row.first_model && processor.model <= row.last_model) {
      return true;
    }
  }
  return false;
}

bool HasInstructions(FastKernels fast, const Processor& processor) {
  return processor.has_avx512_bf16 && (fast != FastKernels::kAvx512Amx || processor.has_amx_bf16);
}

}  // namespace

FastKernels ChooseFastKernels(FastKernelsMode mode, InstructionSet set, const Processor& processor) {
  const bool compiled = set == InstructionSet::kAvx512 && FastQueryLaneKernels() != nullptr;
  if (!compiled || mode == FastKernelsMode::kOff) return FastKernels::kNone;
  for (const FastKernels fast : kFastFamilies) {
    if (!HasInstructions(fast, processor)) continue;
    if (mode == FastKernelsMode::kOn || IsFaster(fast, processor)) return fast;
  }
  return FastKernels::kNone;
}

FastKernels ChooseFastKernels(FastKernelsMode mode, InstructionSet set) {
  Processor processor = ThisProcessor();
  const FastKernels chosen = ChooseFastKernels(mode, set, processor);
  if (chosen != FastKernels::kAvx512Amx || MayUseTiles()) return chosen;
  processor.has_amx_bf16 = false;
  return ChooseFastKernels(mode, set, processor);
}

std::vector<FastKernels> SupportedFastKernels(InstructionSet set) {
  const FastKernels best = ChooseFastKernels(FastKernelsMode::kOn, set);
  std::vector<FastKernels> families;
  for (const FastKernels fast : kFastFamilies) {
    if (fast == best || (!families.empty() && HasInstructions(fast, ThisProcessor()))) families.push_back(fast);
  }
  return families;
}

std::optional<FastKernelsMode> ParseFastKernelsMode(std::string_view name) {
  if (name == "auto") return FastKernelsMode::kAuto;
  if (name == "on") return FastKernelsMode::kOn;
  if (name == "off") return FastKernelsMode::kOff;
  return std::nullopt;
}

std::string KernelName(InstructionSet set, FastKernels used) {
  std::string name(InstructionSetName(set));
  absl::AsciiStrToLower(&name);
  switch (used) {
    case FastKernels::kAvx512Amx: return name + "-amx-fast";
    case FastKernels::kAvx512Bf16: return name + "-bf16-fast";
    case FastKernels::kNone: break;
  }
  return name;
}

const KernelTable& KernelsFor(FastKernels family) {
  const auto make = [](const RowKernels& prefill, const RowKernels& decode, const LinearKernels& linear) {
    const KernelTable& exact = KernelsFor(InstructionSet::kAvx512);
    return KernelTable{prefill, decode, linear, exact.convert};
  };
  if (family == FastKernels::kAvx512Amx) {
    static const KernelTable amx = make(*FastAmxQueryLaneKernels(), *FastAmxKeyLaneKernels(), *FastAmxLinearKernels());
    return amx;
  }
  static const KernelTable bf16 = make(*FastQueryLaneKernels(), *FastKeyLaneKernels(), *FastLinearKernels());
  return bf16;
}

}  // namespace attend
