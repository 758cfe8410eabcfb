// Prints fingerprints of what the kernels compute, so that machines can be compared: one line per problem, the same
// wherever there is fused multiply-add.
//
//   core_bits              NAME PART=FINGERPRINT ...     fails when this machine's own instruction sets disagree
//   core_bits --show NAME  every element of that problem, to find the one that differs
//
// Which instruction sets took part goes to standard error. Exits with 77 when none of this machine's promises its bits.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/kernels/instruction_set.h"
#include "tests/core/core_bits_cases.h"

namespace attend::testing {
namespace {

constexpr int kNothingToCompare = 77;

// FNV-1a over the bits. Every NaN counts as the same: which one an operation makes is the processor's choice (the sign
// is set on x86 and not on Arm), and the contract says NaN and no more.
std::uint64_t Fingerprint(const std::vector<double>& elements) {
  std::uint64_t hash = 14695981039346656037u;
  for (double x : elements) {
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    if (x != x) bits = 0x7ff8000000000000u;
    hash = (hash ^ bits) * 1099511628211u;
  }
  return hash;
}

std::string Line(const BitsCase& bits_case, InstructionSet set) {
  std::string line = bits_case.name;
  for (const Part& part : bits_case.compute(set)) {
    absl::StrAppend(&line, " ", absl::string_view(part.name.data(), part.name.size()), "=",
                    absl::Hex(Fingerprint(part.elements), absl::kZeroPad16));
  }
  return line;
}

std::vector<InstructionSet> ReproducibleSets() {
  std::vector<InstructionSet> sets;
  for (InstructionSet set : SupportedInstructionSets()) {
    if (IsBitReproducible(set)) sets.push_back(set);
  }
  return sets;
}

int PrintAll(const std::vector<InstructionSet>& sets) {
  int differing = 0;
  for (const BitsCase& bits_case : BitsCases()) {
    const std::string first = Line(bits_case, sets[0]);
    std::printf("%s\n", first.c_str());
    for (InstructionSet set : sets) {
      const std::string line = Line(bits_case, set);
      if (line == first) continue;
      ++differing;
      std::fprintf(stderr, "%s differs from\n%s\n", line.c_str(), first.c_str());
    }
  }
  for (std::size_t i = 0; i < sets.size(); ++i) {
    std::fprintf(stderr, "%s%s", i > 0 ? ", " : "", InstructionSetName(sets[i]).data());
  }
  std::fprintf(stderr, "\n");
  return differing == 0 ? 0 : 1;
}

int Show(std::string_view name, InstructionSet set) {
  for (const BitsCase& bits_case : BitsCases()) {
    if (bits_case.name != name) continue;
    for (const Part& part : bits_case.compute(set)) {
      for (std::size_t i = 0; i < part.elements.size(); ++i) {
        std::printf("%s[%zu] %a\n", part.name.data(), i, part.elements[i]);
      }
    }
    return 0;
  }
  std::fprintf(stderr, "no problem of that name\n");
  return 2;
}

int Main(int argc, char** argv) {
  const std::vector<InstructionSet> sets = ReproducibleSets();
  if (sets.empty()) {
    std::fprintf(stderr, "no instruction set of this machine has fused multiply-add; there are no bits to compare\n");
    return kNothingToCompare;
  }
  if (argc == 3 && std::string_view(argv[1]) == "--show") return Show(argv[2], sets[0]);
  return PrintAll(sets);
}

}  // namespace
}  // namespace attend::testing

int main(int argc, char** argv) { return attend::testing::Main(argc, argv); }
