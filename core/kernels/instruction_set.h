// Which vector instructions the kernels use.
#ifndef ATTEND_CORE_KERNELS_INSTRUCTION_SET_H_
#define ATTEND_CORE_KERNELS_INSTRUCTION_SET_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace attend {

// One compiled variant of the kernels, ordered from plainest to widest. All that have fused multiply-add give the same
// bits; the others stay within the accuracy contract.
enum class InstructionSet : std::uint8_t { kBaseline, kNeon, kSse4, kAvx2, kAvx512 };

// The widest that this machine runs; decided once, from CPUID.
InstructionSet BestInstructionSet();

// All that are compiled in and that this machine runs, widest first; never empty.
std::vector<InstructionSet> SupportedInstructionSets();

// Whether results have the bits that every machine with fused multiply-add gives.
bool IsBitReproducible(InstructionSet set);

// `BASELINE`, `NEON`, `SSE4`, `AVX2`, `AVX512`; and back, in any case.
std::string_view InstructionSetName(InstructionSet set);
std::optional<InstructionSet> ParseInstructionSet(std::string_view name);

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_INSTRUCTION_SET_H_
