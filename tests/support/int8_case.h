// Attention problems whose keys or values are INT8, and the same problems in FLOAT32.
#ifndef ATTEND_TESTS_SUPPORT_INT8_CASE_H_
#define ATTEND_TESTS_SUPPORT_INT8_CASE_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/problem/sdpa_problem.h"
#include "tests/support/sdpa_case.h"

namespace attend::testing {

// One tensor [batch, heads, length, dim], or [batch, length, heads, dim] if `merged`, in no more memory than it needs.
struct Int8Tensor {
  Int8Tensor(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d, bool is_merged, std::uint64_t seed)
      : batch(b), heads(h), length(t), dim(d), merged(is_merged) {
    QuickRandom random(seed);
    scales.resize(static_cast<std::size_t>(b * h * t));
    for (float& scale : scales) scale = std::exp2(random.Uniform() * 3) * (random.Bits() % 4 == 0 ? -0.011f : 0.013f);
    numbers.resize(static_cast<std::size_t>(b * h * t * d));
    for (std::int8_t& x : numbers) x = static_cast<std::int8_t>(random.Bits() >> 7);
  }

  // The FLOAT32 numbers that the tensor stands for, each a product rounded once.
  void Dequantize() {
    floats.resize(numbers.size());
    const auto row = static_cast<std::size_t>(dim);
    for (std::size_t i = 0; i < numbers.size(); ++i) floats[i] = static_cast<float>(numbers[i]) * scales[i / row];
  }

  template <typename T>
  BasicHeadsView<const T> View(const std::vector<T>& of, std::int64_t width) const {
    return merged ? MergedHeads<const T>(of.data(), batch, heads, length, width)
                  : SplitHeads<const T>(of.data(), batch, heads, length, width);
  }

  std::int64_t batch, heads, length, dim;
  bool merged;
  std::vector<std::int8_t> numbers;
  std::vector<float> scales;  // One for each row.
  std::vector<float> floats;
};

// Which tensors are INT8; the others are what it stands for.
enum class Int8Of { kBoth, kKey, kValue };

// Queries and options are those of an SdpaCase.
struct Int8Case {
  explicit Int8Case(const SdpaCaseSpec& s, bool merged = false)
      : base(s),
        key(s.batch, s.kv_heads, s.keys, s.head_dim, merged, s.seed + 1),
        value(s.batch, s.kv_heads, s.keys, s.value_dim, merged, s.seed + 2) {}

  SdpaProblem Problem(Int8Of of = Int8Of::kBoth) {
    SdpaProblem::Spec spec = WideSpec();
    if (of != Int8Of::kValue) {
      spec.key = key.View(key.numbers, key.dim);
      spec.key_scales = key.View(key.scales, 1);
    }
    if (of != Int8Of::kKey) {
      spec.value = value.View(value.numbers, value.dim);
      spec.value_scales = value.View(value.scales, 1);
    }
    return *SdpaProblem::Create(spec);
  }
  SdpaProblem WideProblem() { return *SdpaProblem::Create(WideSpec()); }

  SdpaCase base;
  Int8Tensor key, value;

 private:
  SdpaProblem::Spec WideSpec() {
    key.Dequantize();
    value.Dequantize();
    return {base.query_view, key.View(key.floats, key.dim), value.View(value.floats, value.dim), base.options};
  }
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_INT8_CASE_H_
