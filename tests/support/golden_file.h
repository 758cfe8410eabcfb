// Reads reference cases from safetensors files, for tests alone: no limits, failures end the test program.
#ifndef ATTEND_TESTS_SUPPORT_GOLDEN_FILE_H_
#define ATTEND_TESTS_SUPPORT_GOLDEN_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace attend::testing {

// One tensor, its numbers widened to double and, for F32, also as they are.
struct GoldenTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> floats;         // F32 only.
  std::vector<double> doubles;       // F32 and F64.
  std::vector<std::int64_t> int64s;  // I64 only.
};

struct GoldenFile {
  std::map<std::string, GoldenTensor> tensors;
  std::map<std::string, std::string> metadata;  // What `__metadata__` says.
};

// Reads tests/data/golden/`name`.safetensors.
GoldenFile ReadGoldenFile(const std::string& name);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_GOLDEN_FILE_H_
