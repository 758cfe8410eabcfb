// Fingerprints of what the kernels compute, one line per problem: the same wherever there is fused multiply-add.
//
//   core_bits                        NAME PART=FINGERPRINT ...
//   core_bits --check FILE [SETS]    compares them with those of a file, and names the problems that differ; where SETS
//                                    is given (`NEON`), fails unless just these instruction sets took part
//   core_bits --write FILE           writes that file: `make bits`, only when bits are meant to change
//   core_bits --show NAME            every element of that problem, to find the one that differs
//   core_bits --fast ...             the same of the fast kernels for VDPBF16PS, and
//   core_bits --amx ...              for AMX, each with a file of its own; some of the problems are also emulated, and
//                                    these alone where the machine has no such kernels
//
// Every instruction set of this machine that promises its bits computes every problem, and each fails when two of them
// disagree. Which they were goes to standard error. Exits with 77 when there is none.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/kernels/fast_kernels.h"
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

std::string Line(const std::string& name, const std::vector<Part>& parts) {
  std::string line = name;
  for (const Part& part : parts) {
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

std::vector<InstructionSet> SetsWith(FastKernels family) {
  std::vector<InstructionSet> sets;
  for (InstructionSet set : SupportedInstructionSets()) {
    const std::vector<FastKernels> families = SupportedFastKernels(set);
    if (std::count(families.begin(), families.end(), family) != 0) sets.push_back(set);
  }
  return sets;
}

FastKernels FamilyOf(std::string_view flag) {
  if (flag == "--fast") return FastKernels::kAvx512Bf16;
  return flag == "--amx" ? FastKernels::kAvx512Amx : FastKernels::kNone;
}

std::string Names(const std::vector<InstructionSet>& sets) {
  std::string names;
  for (InstructionSet set : sets) {
    const std::string_view name = InstructionSetName(set);
    absl::StrAppend(&names, names.empty() ? "" : ", ", absl::string_view(name.data(), name.size()));
  }
  return names;
}

// Every problem's line; none if two instruction sets disagree, which is said.
std::optional<std::vector<std::string>> AllLines(const std::vector<BitsCase>& cases,
                                                 const std::vector<InstructionSet>& sets) {
  std::vector<std::string> lines;
  bool differs = false;
  for (const BitsCase& bits_case : cases) {
    std::vector<std::string> ways;
    for (InstructionSet set : sets) ways.push_back(Line(bits_case.name, bits_case.compute(set)));
    if (bits_case.emulate) ways.push_back(Line(bits_case.name, bits_case.emulate()));
    for (const std::string& line : ways) {
      if (line == ways[0]) continue;
      differs = true;
      std::fprintf(stderr, "%s differs from\n%s\n", line.c_str(), ways[0].c_str());
    }
    lines.push_back(ways[0]);
  }
  std::fprintf(stderr, "%s\n", Names(sets).c_str());
  if (differs) return std::nullopt;
  return lines;
}

std::string NameOf(const std::string& line) { return line.substr(0, line.find(' ')); }

// Says which problems of `lines` are not as in the file, or with `all` in one of both alone. Returns how many.
int CountDifferences(const std::vector<std::string>& lines, bool all, std::istream& file) {
  std::map<std::string, std::string> recorded;
  for (std::string line; std::getline(file, line);) recorded[NameOf(line)] = line;
  int differing = 0;
  for (const std::string& line : lines) {
    const auto found = recorded.find(NameOf(line));
    const std::string was = found == recorded.end() ? "not recorded" : found->second;
    if (found != recorded.end()) recorded.erase(found);
    if (was == line) continue;
    ++differing;
    std::fprintf(stderr, "%s: not the recorded bits\n  computed %s\n  recorded %s\n", NameOf(line).c_str(),
                 line.c_str(), was.c_str());
  }
  for (const auto& [name, line] : recorded) {
    if (!all) break;
    ++differing;
    std::fprintf(stderr, "%s: recorded, but no longer computed\n", name.c_str());
  }
  return differing;
}

int Check(const std::vector<std::string>& lines, bool all, const char* path) {
  std::ifstream file(path);
  if (!file) {
    std::fprintf(stderr, "%s cannot be read\n", path);
    return 2;
  }
  const int differing = CountDifferences(lines, all, file);
  if (differing == 0) return 0;
  std::fprintf(stderr,
               "%d of %zu problems differ from %s; core_bits --show NAME prints one's elements. `make bits` records "
               "new ones, if bits are meant to change.\n",
               differing, lines.size(), path);
  return 1;
}

int Write(const std::vector<std::string>& lines, const char* path) {
  std::ofstream file(path);
  for (const std::string& line : lines) file << line << '\n';
  file.close();
  if (file) return 0;
  std::fprintf(stderr, "%s cannot be written\n", path);
  return 2;
}

int Show(const std::vector<BitsCase>& cases, std::string_view name, InstructionSet set) {
  for (const BitsCase& bits_case : cases) {
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
  const FastKernels family = argc > 1 ? FamilyOf(argv[1]) : FastKernels::kNone;
  const bool fast = family != FastKernels::kNone;
  if (fast) --argc, ++argv;
  const std::vector<InstructionSet> sets = fast ? SetsWith(family) : ReproducibleSets();
  const std::string_view mode = argc > 2 ? argv[1] : "";
  if (sets.empty() && (!fast || mode != "--check")) {
    std::fprintf(stderr, "this machine has no %s; there are no bits to compare\n",
                 fast ? "such fast kernels" : "instruction set with fused multiply-add");
    return kNothingToCompare;
  }
  std::vector<BitsCase> cases = fast ? FastBitsCases(family) : BitsCases();
  if (sets.empty()) {
    cases.erase(std::remove_if(cases.begin(), cases.end(), [](const BitsCase& c) { return !c.emulate; }), cases.end());
  }
  if (mode == "--show" && argc == 3) return Show(cases, argv[2], sets[0]);
  const bool checks = mode == "--check" && argc <= 4, writes = mode == "--write" && argc == 3;
  if (argc > 1 && !checks && !writes) {
    std::fprintf(stderr, "usage: core_bits [--fast | --amx] [--check FILE [SETS] | --write FILE | --show NAME]\n");
    return 2;
  }
  if (argc == 4 && Names(sets) != argv[3]) {
    std::fprintf(stderr, "computed with %s, but %s was to be compared\n", Names(sets).c_str(), argv[3]);
    return 2;
  }
  const std::optional<std::vector<std::string>> lines = AllLines(cases, sets);
  if (!lines) return 1;
  if (checks) return Check(*lines, !sets.empty(), argv[2]);
  if (writes) return Write(*lines, argv[2]);
  for (const std::string& line : *lines) std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace
}  // namespace attend::testing

int main(int argc, char** argv) { return attend::testing::Main(argc, argv); }
