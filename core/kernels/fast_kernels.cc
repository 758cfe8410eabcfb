#include "core/kernels/fast_kernels.h"

#include <array>

#include "absl/strings/ascii.h"

namespace attend {
namespace {

// Processors on which VDPBF16PS does twice the work of a float multiply-add in the same time, by measurement. Models
// from `first_model` to `last_model`. Intel's Sapphire and Emerald Rapids take twice as long as for float; they have
// AMX instead.
struct Row {
  std::string_view vendor;
  int family;
  int first_model;
  int last_model;
};
constexpr std::array<Row, 4> kFasterInBf16 = {{
    {"AuthenticAMD", 25, 0x10, 0x1f},  // Zen 4: Genoa.
    {"AuthenticAMD", 25, 0x60, 0x7f},  // Zen 4: Raphael, Phoenix, Hawk Point.
    {"AuthenticAMD", 25, 0xa0, 0xaf},  // Zen 4c: Bergamo, Siena.
    {"AuthenticAMD", 26, 0x00, 0xff},  // Zen 5.
}};

bool IsFasterInBf16(const Processor& processor) {
  for (const Row& row : kFasterInBf16) {
    if (processor.vendor == row.vendor && processor.family == row.family && processor.model >= row.first_model &&
        processor.model <= row.last_model) {
      return true;
    }
  }
  return false;
}

}  // namespace

FastKernels ChooseFastKernels(FastKernelsMode mode, InstructionSet set, const Processor& processor) {
  const bool can = set == InstructionSet::kAvx512 && processor.has_avx512_bf16 && FastQueryLaneKernels() != nullptr;
  if (!can || mode == FastKernelsMode::kOff) return FastKernels::kNone;
  return mode == FastKernelsMode::kOn || IsFasterInBf16(processor) ? FastKernels::kAvx512Bf16 : FastKernels::kNone;
}

FastKernels ChooseFastKernels(FastKernelsMode mode, InstructionSet set) {
  return ChooseFastKernels(mode, set, ThisProcessor());
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
  return used == FastKernels::kAvx512Bf16 ? name + "-bf16-fast" : name;
}

const KernelTable& KernelsFor(FastKernels) {
  static const KernelTable table = [] {
    KernelTable made = KernelsFor(InstructionSet::kAvx512);
    made.prefill = *FastQueryLaneKernels();
    made.decode = *FastKeyLaneKernels();
    made.linear = *FastLinearKernels();
    return made;
  }();
  return table;
}

}  // namespace attend
