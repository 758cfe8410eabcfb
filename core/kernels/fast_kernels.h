// The kernels of PRECISION_FAST: which there are, and which of them this processor uses.
//
// They multiply 16-bit numbers without widening them first and round weights to 16 bits, so their bits are their own;
// they are the same on every machine with the same family. May be called concurrently.
#ifndef ATTEND_CORE_KERNELS_FAST_KERNELS_H_
#define ATTEND_CORE_KERNELS_FAST_KERNELS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/kernels/instruction_set.h"
#include "core/kernels/kernel_table.h"
#include "core/kernels/processor.h"

namespace attend {

// A family is compiled for one instruction set, and replaces its kernels for the types that it computes.
enum class FastKernels : std::uint8_t {
  kNone,
  // BFLOAT16 queries, keys and values, and tokens and weights, by VDPBF16PS; of InstructionSet::kAvx512. Its linear
  // kernels take x and weights in BFLOAT16 and an even in_features alone; they pack weights as those of kAvx512 do.
  kAvx512Bf16,
  // The same by TDPBF16PS, of AMX-BF16, whose sums are others.
  kAvx512Amx,
};

// All but kNone.
inline constexpr std::array<FastKernels, 2> kFastFamilies = {FastKernels::kAvx512Amx, FastKernels::kAvx512Bf16};

enum class FastKernelsMode : std::uint8_t {
  kAuto,  // Where a table of processors says that they are faster.
  kOn,    // Where the processor has the instructions, even if it executes them slowly; kAvx512Amx where it has both.
  kOff,
};

// The family for requests of PRECISION_FAST beside the kernels of `set`: a function of the processor alone, never of a
// measurement, so that equal machines give equal bits. The processor at hand has tile registers only if Linux lets this
// process use them, which is asked for where they would be chosen.
FastKernels ChooseFastKernels(FastKernelsMode mode, InstructionSet set);
FastKernels ChooseFastKernels(FastKernelsMode mode, InstructionSet set, const Processor& processor);

// The families that this machine can compute with beside `set`, the one that kOn chooses first.
std::vector<FastKernels> SupportedFastKernels(InstructionSet set);

// `auto`, `on`, `off`.
std::optional<FastKernelsMode> ParseFastKernelsMode(std::string_view name);

// What a program computes with.
struct KernelChoice {
  InstructionSet instruction_set = BestInstructionSet();
  FastKernels fast = FastKernels::kNone;
};

// The name of kernels, as receipts have it: the instruction set in lower case, and behind it the family that computed:
// `avx512`, `avx512-bf16-fast`, `avx512-amx-fast`.
std::string KernelName(InstructionSet set, FastKernels used);

// REQUIRES: SupportedFastKernels() or ChooseFastKernels() has named the family: it may need the operating
// system's permission.
const KernelTable& KernelsFor(FastKernels family);

// The parts, each from its own translation unit; null where they are not compiled in.
const RowKernels* FastQueryLaneKernels();
const RowKernels* FastKeyLaneKernels();
const LinearKernels* FastLinearKernels();
const RowKernels* FastAmxQueryLaneKernels();
const RowKernels* FastAmxKeyLaneKernels();
const LinearKernels* FastAmxLinearKernels();

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_FAST_KERNELS_H_
