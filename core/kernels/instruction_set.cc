#include "core/kernels/instruction_set.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "core/kernels/targets.h"
#include "hwy/targets.h"

namespace attend {
namespace {

struct Known {
  InstructionSet set;
  std::int64_t target;  // Highway's bit; 0 for the baseline, which always runs.
  std::string_view name;
};

constexpr std::array<Known, 5> kWidestFirst = {{
    {InstructionSet::kAvx512, HWY_AVX3, "AVX512"},
    {InstructionSet::kAvx2, HWY_AVX2, "AVX2"},
    {InstructionSet::kSse4, HWY_SSE4, "SSE4"},
    {InstructionSet::kNeon, HWY_NEON, "NEON"},
    {InstructionSet::kBaseline, 0, "BASELINE"},
}};

}  // namespace

std::vector<InstructionSet> SupportedInstructionSets() {
  const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  std::vector<InstructionSet> sets;
  for (const Known& known : kWidestFirst) {
    if (known.target == 0 || (usable & known.target) != 0) sets.push_back(known.set);
  }
  return sets;
}

InstructionSet BestInstructionSet() {
  static const InstructionSet best = SupportedInstructionSets().front();
  return best;
}

bool IsBitReproducible(InstructionSet set) {
  return set == InstructionSet::kAvx512 || set == InstructionSet::kAvx2 || set == InstructionSet::kNeon;
}

std::string_view InstructionSetName(InstructionSet set) {
  for (const Known& known : kWidestFirst) {
    if (known.set == set) return known.name;
  }
  return "UNKNOWN";
}

std::optional<InstructionSet> ParseInstructionSet(std::string_view name) {
  for (const Known& known : kWidestFirst) {
    if (absl::EqualsIgnoreCase(absl::string_view(name.data(), name.size()),
                               absl::string_view(known.name.data(), known.name.size()))) {
      return known.set;
    }
  }
  return std::nullopt;
}

}  // namespace attend
