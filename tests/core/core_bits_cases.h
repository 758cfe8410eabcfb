// The problems that core_bits computes, each with a name that says what is special about it.
#ifndef ATTEND_TESTS_CORE_CORE_BITS_CASES_H_
#define ATTEND_TESTS_CORE_CORE_BITS_CASES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/kernels/fast_kernels.h"
#include "core/kernels/instruction_set.h"
#include "core/problem/sdpa_problem.h"
#include "tests/support/sdpa_case.h"

namespace attend::testing {

// One of a result's tensors; numbers of every type are widened exactly, so that they are the same where their bits are.
struct Part {
  std::string_view name;
  std::vector<double> elements;
};

template <typename T>
std::vector<double> Widened(const std::vector<T>& numbers) {
  return {numbers.begin(), numbers.end()};
}

struct BitsCase {
  std::string name;  // No spaces, for example `sdpa/decode_2500/softcap`.
  std::function<std::vector<Part>(InstructionSet)> compute;
  // The same without special instructions; empty where that is not written.
  std::function<std::vector<Part>()> emulate;
};

// A case without options.
SdpaCaseSpec Spec(std::int64_t heads, std::int64_t kv_heads, std::int64_t queries, std::int64_t keys,
                  std::int64_t head_dim, std::int64_t value_dim);

// For each way through the kernels one of the shapes that FLOAT32 has, by its name.
std::vector<std::pair<const char*, SdpaCaseSpec>> FewShapes();

// What a problem with results of FLOAT32 computes; nothing if it is refused.
std::vector<Part> PartsOf(const SdpaProblem& problem, InstructionSet set);

// The same on every machine: inputs come from integers and from operations that round the same everywhere.
std::vector<BitsCase> BitsCases();

// Those of PRECISION_FAST, whose bits belong to a family of fast kernels.
std::vector<BitsCase> FastBitsCases(FastKernels family);

// Those of BitsCases with other types than FLOAT32, ragged batches and top weights.
void AddTypedCases(std::vector<BitsCase>& cases);

// And those of layers with norms and rotary embedding, and of packed weights.
void AddLayerCases(std::vector<BitsCase>& cases);

// And those of INT8 keys and values.
void AddInt8Cases(std::vector<BitsCase>& cases);

// And those in which a product, a bias or a sink is at an edge of float32's or float64's range.
void AddNumberEdgeCases(std::vector<BitsCase>& cases);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_CORE_CORE_BITS_CASES_H_
