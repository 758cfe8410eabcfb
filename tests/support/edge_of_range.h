// Problems with finite inputs whose arithmetic leaves float32's range, or loses what lies below it, one for each way
// that is known.
#ifndef ATTEND_TESTS_SUPPORT_EDGE_OF_RANGE_H_
#define ATTEND_TESTS_SUPPORT_EDGE_OF_RANGE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/support/sdpa_case.h"

namespace attend::testing {

inline constexpr float kLargest = std::numeric_limits<float>::max();

// `prepare` changes what a case is made of, `apply` the numbers that it is filled with.
struct EdgeOfRange {
  const char* name;
  void (*prepare)(SdpaCaseSpec&);
  void (*apply)(SdpaCase&);
};

namespace edge {

inline void Scale(std::vector<float>& numbers, float factor) {
  for (float& x : numbers) x *= factor;
}
inline void Bias(SdpaCaseSpec& spec) { spec.bias = true; }
inline void Sinks(SdpaCaseSpec& spec) { spec.sinks = true; }
inline void Alibi(SdpaCaseSpec& spec) { spec.alibi = true; }
inline void Nothing(SdpaCaseSpec&) {}
inline void As(SdpaCase&) {}
// Every `step`-th number from `first` on.
inline void Set(std::vector<float>& numbers, std::size_t first, std::size_t step, float value) {
  for (std::size_t i = first; i < numbers.size(); i += step) numbers[i] = value;
}
inline void SetAll(std::vector<float>& numbers, float value) { Set(numbers, 0, 1, value); }
// The first two dimensions of each key and query, whose products are +-1e39 or nearly cancel: 1e36 is left, which one
// key in seven has least of.
inline void Large(SdpaCase& c, float second) {
  const auto dim = static_cast<std::size_t>(c.spec.head_dim);
  Set(c.query, 0, dim, 4e19f), Set(c.key, 0, dim, 4e19f);
  if (dim == 1) return;
  Set(c.query, 1, dim, 4e19f);
  for (std::size_t i = 1, j = 0; i < c.key.size(); i += dim, ++j) {
    c.key[i] = second * (1 + static_cast<float>(2 + j % 7) / 1024);
  }
}

}  // namespace edge

inline const EdgeOfRange kEdgesOfRange[] = {
    {"bias_lowest", edge::Bias, [](SdpaCase& c) { edge::SetAll(c.bias, -kLargest); }},
    {"bias_beyond_log2", edge::Bias, [](SdpaCase& c) { edge::SetAll(c.bias, -2.5e38f); }},
    {"bias_largest", edge::Bias, [](SdpaCase& c) { edge::SetAll(c.bias, kLargest); }},
    {"bias_lowest_for_some", edge::Bias, [](SdpaCase& c) { edge::Set(c.bias, 0, 3, -kLargest); }},
    {"bias_largest_for_some", edge::Bias, [](SdpaCase& c) { edge::Set(c.bias, 1, 3, kLargest); }},
    {"bias_3e38_and_lowest", edge::Bias,
     [](SdpaCase& c) { edge::Set(c.bias, 0, 2, -kLargest), edge::Set(c.bias, 1, 3, 3e38f); }},
    {"bias_infinite_and_lowest", edge::Bias,
     [](SdpaCase& c) {
       edge::SetAll(c.bias, -kLargest), edge::Set(c.bias, 0, 2, -std::numeric_limits<float>::infinity());
     }},
    {"softcap_3e38", edge::Nothing, [](SdpaCase& c) { c.options.softcap = 3e38f; }},
    {"softcap_1e30", edge::Nothing, [](SdpaCase& c) { c.options.softcap = 1e30f; }},
    {"softcap_smallest", edge::Nothing,
     [](SdpaCase& c) { c.options.softcap = std::numeric_limits<float>::denorm_min(); }},
    {"softcap_of_overflow", edge::Nothing,
     [](SdpaCase& c) { c.options.softcap = 0.25f, c.options.scale = 1.0f, edge::Large(c, -4e19f); }},
    {"scale_3e38", edge::Nothing, [](SdpaCase& c) { c.options.scale = 3e38f, edge::Scale(c.query, 1e-38f); }},
    {"scale_lowest", edge::Nothing, [](SdpaCase& c) { c.options.scale = -kLargest, edge::Scale(c.query, 1e-38f); }},
    {"scale_largest", edge::Nothing, [](SdpaCase& c) { c.options.scale = kLargest; }},
    {"scale_denormal", edge::Nothing,
     [](SdpaCase& c) { c.options.scale = 1e-41f, edge::Scale(c.query, 1e20f), edge::Scale(c.key, 1e20f); }},
    {"scale_of_large_queries", edge::Nothing,
     [](SdpaCase& c) { c.options.scale = 1e-38f, edge::Scale(c.query, 1e38f); }},
    {"queries_1e-38_keys_1e38", edge::Nothing,
     [](SdpaCase& c) { edge::Scale(c.query, 1e-39f), edge::Scale(c.key, 1e38f); }},
    {"sink_3e38", edge::Sinks, [](SdpaCase& c) { edge::SetAll(c.sinks, 3e38f); }},
    {"sink_lowest", edge::Sinks, [](SdpaCase& c) { edge::SetAll(c.sinks, -kLargest); }},
    {"sink_and_bias_lowest", [](SdpaCaseSpec& s) { s.sinks = s.bias = true; },
     [](SdpaCase& c) { edge::SetAll(c.sinks, -kLargest), edge::SetAll(c.bias, -kLargest); }},
    {"sink_lowest_of_nothing", [](SdpaCaseSpec& s) { s.sinks = s.mask = true; },
     [](SdpaCase& c) { edge::SetAll(c.sinks, -3e38f), std::fill(c.mask.begin(), c.mask.end(), std::uint8_t{0}); }},
    {"products_3e38", edge::Nothing,
     [](SdpaCase& c) { c.options.scale = 1.0f, edge::Scale(c.query, 1e19f), edge::Scale(c.key, 1e19f); }},
    {"products_all_below", edge::Nothing, [](SdpaCase& c) { c.options.scale = -1.0f, edge::Large(c, 4e19f); }},
    {"products_that_cancel", edge::Nothing, [](SdpaCase& c) { c.options.scale = 1.0f, edge::Large(c, -4e19f); }},
    {"products_that_cancel_from_below", edge::Nothing,
     [](SdpaCase& c) { c.options.scale = -1.0f, edge::Large(c, -4e19f); }},
    {"products_that_cancel_behind_a_mask", [](SdpaCaseSpec& s) { s.mask = true; },
     [](SdpaCase& c) { c.options.scale = -1.0f, edge::Large(c, -4e19f); }},
    {"products_that_cancel_and_bias", edge::Bias,
     [](SdpaCase& c) { c.options.scale = -1.0f, edge::Large(c, -4e19f), edge::Set(c.bias, 0, 3, -kLargest); }},
    {"values_3e38", edge::Nothing, [](SdpaCase& c) { edge::Scale(c.value, 3e38f); }},
    {"values_largest", edge::Nothing,
     [](SdpaCase& c) { edge::SetAll(c.value, kLargest), edge::Set(c.value, 1, 3, -kLargest); }},
    {"alibi_3e38", edge::Alibi, [](SdpaCase& c) { edge::SetAll(c.alibi, 3e38f); }},
    {"alibi_lowest", edge::Alibi, [](SdpaCase& c) { edge::SetAll(c.alibi, -kLargest); }},
    {"alibi_1e37", edge::Alibi, [](SdpaCase& c) { edge::SetAll(c.alibi, 1e37f); }},
    {"alibi_against_bias", [](SdpaCaseSpec& s) { s.alibi = s.bias = true; },
     [](SdpaCase& c) { edge::SetAll(c.bias, -kLargest), edge::SetAll(c.alibi, -2e38f); }},
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_EDGE_OF_RANGE_H_
