// The problems of core_bits whose keys or values are INT8.
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/core/core_bits_cases.h"
#include "tests/support/int8_case.h"

namespace attend::testing {
namespace {

constexpr std::pair<const char*, Int8Of> kKinds[] = {
    {"both", Int8Of::kBoth}, {"key", Int8Of::kKey}, {"value", Int8Of::kValue}};

// In place of scales that exp2 made, which is not the same function everywhere.
void FillScales(Int8Tensor& tensor, std::uint64_t seed) {
  QuickRandom random(seed);
  for (float& scale : tensor.scales) {
    const float size = std::ldexp(0.013f, static_cast<int>(random.Bits() % 7) - 3);
    scale = (1 + random.Uniform() / 4) * (random.Bits() % 4 == 0 ? -size : size);
  }
}

std::vector<Part> Compute(const SdpaCaseSpec& spec, Int8Of of, InstructionSet set) {
  Int8Case c(spec);
  FillScales(c.key, 11);
  FillScales(c.value, 12);
  return PartsOf(c.Problem(of), set);
}

void Add(const std::string& name, const SdpaCaseSpec& spec, std::vector<BitsCase>& cases) {
  for (const auto& [kind, of] : kKinds) {
    cases.push_back({absl::StrCat("int8/", kind, "/", name),
                     [spec = spec, of = of](InstructionSet set) { return Compute(spec, of, set); }});
  }
}

}  // namespace

// Plain and with all options.
void AddInt8Cases(std::vector<BitsCase>& cases) {
  for (const auto& [shape, plain] : FewShapes()) {
    SdpaCaseSpec all = plain;
    all.batch = 2;
    all.causal = CausalMode::kBottomRight;
    all.window_left = all.keys * 3 / 4;
    all.softcap = 5.0f;
    all.mask = all.key_mask = all.bias = all.alibi = all.sinks = true;
    all.valid_lengths = {all.keys, (all.keys + 1) / 2};
    Add(absl::StrCat(shape, "/plain"), plain, cases);
    Add(absl::StrCat(shape, "/everything"), all, cases);
  }
}

}  // namespace attend::testing
