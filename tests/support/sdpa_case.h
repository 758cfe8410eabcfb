// Attention problems made from a handful of numbers, with everything they view, and their results.
#ifndef ATTEND_TESTS_SUPPORT_SDPA_CASE_H_
#define ATTEND_TESTS_SUPPORT_SDPA_CASE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/compute/compute_sdpa.h"
#include "core/reference/reference.h"
#include "tests/support/heads_tensor.h"
#include "tests/support/same_bits.h"

namespace attend::testing {

// Quick uniform numbers in [-1, 1), the same everywhere.
class QuickRandom {
 public:
  explicit QuickRandom(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::uint32_t Bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  float Uniform() { return static_cast<float>(static_cast<std::int32_t>(Bits() & ~0xffu)) / 2147483648.0f; }
  void Fill(std::vector<float>& numbers, float scale) {
    for (float& x : numbers) x = Uniform() * scale;
  }

 private:
  std::uint64_t state_;
};

struct SdpaCaseSpec {
  std::int64_t batch = 1, heads = 1, kv_heads = 1, queries = 1, keys = 1, head_dim = 8, value_dim = 8;
  CausalMode causal = CausalMode::kNone;
  std::optional<std::int64_t> window_left, window_right;
  std::optional<float> softcap, scale;
  std::vector<std::int64_t> valid_lengths, query_lengths;
  bool mask = false, key_mask = false, bias = false, alibi = false, sinks = false;
  bool broadcast = false;   // Mask and bias repeat over batch and heads.
  float magnitude = 1.7f;   // Of queries and keys.
  bool misaligned = false;  // Tensors start 4 bytes off a cache line.
  std::uint64_t seed = 1;
};

inline std::ostream& operator<<(std::ostream& out, const SdpaCaseSpec& s) {
  out << "B" << s.batch << " H" << s.heads << " K" << s.kv_heads << " T" << s.queries << " S" << s.keys << " E"
      << s.head_dim << " V" << s.value_dim << " causal" << static_cast<int>(s.causal);
  if (s.window_left) out << " left" << *s.window_left;
  if (s.window_right) out << " right" << *s.window_right;
  if (s.softcap) out << " softcap" << *s.softcap;
  for (std::int64_t n : s.valid_lengths) out << " keys" << n;
  for (std::int64_t n : s.query_lengths) out << " queries" << n;
  return out << (s.mask ? " mask" : "") << (s.key_mask ? " key mask" : "") << (s.bias ? " bias" : "")
             << (s.alibi ? " alibi" : "") << (s.sinks ? " sinks" : "") << (s.broadcast ? " broadcast" : "")
             << (s.misaligned ? " misaligned" : "");
}

// Owns the tensors. Not copyable: problems view it.
struct SdpaCase {
  explicit SdpaCase(const SdpaCaseSpec& s) : spec(s) {
    const std::int64_t shift = s.misaligned ? 1 : 0;
    QuickRandom random(s.seed);
    query.resize(static_cast<std::size_t>(s.batch * s.heads * s.queries * s.head_dim + shift));
    key.resize(static_cast<std::size_t>(s.batch * s.kv_heads * s.keys * s.head_dim + shift));
    value.resize(static_cast<std::size_t>(s.batch * s.kv_heads * s.keys * s.value_dim + shift));
    random.Fill(query, s.magnitude);
    random.Fill(key, s.magnitude);
    random.Fill(value, 1);
    query_view = SplitHeads<const float>(query.data() + shift, s.batch, s.heads, s.queries, s.head_dim);
    key_view = SplitHeads<const float>(key.data() + shift, s.batch, s.kv_heads, s.keys, s.head_dim);
    value_view = SplitHeads<const float>(value.data() + shift, s.batch, s.kv_heads, s.keys, s.value_dim);
    FillOptions(random);
  }
  SdpaCase(const SdpaCase&) = delete;
  SdpaCase& operator=(const SdpaCase&) = delete;

  SdpaProblem Problem() const {
    absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create({query_view, key_view, value_view, options});
    if (!problem.ok()) ADD_FAILURE() << problem.status().ToString() << " for " << spec;
    return *std::move(problem);
  }

  SdpaCaseSpec spec;
  std::vector<float> query, key, value, bias, alibi, sinks;
  std::vector<std::uint8_t> mask, key_mask;
  HeadsView query_view, key_view, value_view;
  AttentionOptions options;

 private:
  template <typename T>
  BasicHeadsView<const T> Broadcastable(const std::vector<T>& elements) const {
    BasicHeadsView<const T> view =
        SplitHeads<const T>(elements.data(), spec.batch, spec.heads, spec.queries, spec.keys);
    if (spec.broadcast) view.batch_stride = view.head_stride = 0;
    return view;
  }

  void FillOptions(QuickRandom& random) {
    options.causal = spec.causal;
    options.sliding_window_left = spec.window_left;
    options.sliding_window_right = spec.window_right;
    options.softcap = spec.softcap;
    options.scale = spec.scale;
    options.valid_lengths = spec.valid_lengths;
    options.query_lengths = spec.query_lengths;
    const auto pairs = static_cast<std::size_t>(spec.batch * spec.heads * spec.queries * spec.keys);
    if (spec.mask) {
      mask.resize(pairs);
      for (std::uint8_t& m : mask) m = random.Bits() % 3 == 0 ? 0 : static_cast<std::uint8_t>(1 + random.Bits() % 255);
      options.mask = Broadcastable(mask);
    }
    if (spec.bias) {
      bias.resize(pairs);
      random.Fill(bias, 2);
      options.bias = Broadcastable(bias);
    }
    for (std::int64_t h = 0; h < spec.heads; ++h) {
      if (spec.alibi) alibi.push_back(0.5f / static_cast<float>(h + 1));
      if (spec.sinks) sinks.push_back(random.Uniform() * 3);
    }
    options.alibi_slopes = alibi;
    options.sinks = sinks;
    if (spec.key_mask) {
      for (std::int64_t i = spec.batch * spec.keys; i > 0; --i) key_mask.push_back(random.Bits() % 3 == 0 ? 0 : 7);
      options.key_mask = SplitHeads<const std::uint8_t>(key_mask.data(), spec.batch, 1, 1, spec.keys);
    }
  }
};

// Which outputs a test asks for: averaged weights go another way through the core than weights per head.
enum class Ask { kOutput, kPerHead, kEverything };

// Outputs of a computation; those not asked for are empty.
struct SdpaResult {
  explicit SdpaResult(const SdpaProblem& p, Ask ask = Ask::kEverything)
      : output(Size(p, p.value_dim())), log_sum_exp(Size(p, 1)), problem_(p) {
    if (ask == Ask::kOutput) return;
    weights.resize(Size(p, p.key_length()));
    scores.resize(weights.size());
    if (ask == Ask::kEverything) averaged.resize(weights.size() / static_cast<std::size_t>(p.num_heads()));
  }

  SdpaOutputs Outputs() {
    const std::int64_t b = problem_.batch(), h = problem_.num_heads(), t = problem_.query_length();
    const std::int64_t s = problem_.key_length();
    SdpaOutputs to;
    to.output = SplitHeads(output.data(), b, h, t, problem_.value_dim());
    to.log_sum_exp = log_sum_exp.data();
    if (!weights.empty()) to.attention_weights = SplitHeads(weights.data(), b, h, t, s);
    if (!scores.empty()) to.scores = SplitHeads(scores.data(), b, h, t, s);
    if (!averaged.empty()) to.averaged_weights = SplitHeads(averaged.data(), b, 1, t, s);
    return to;
  }

  std::vector<float> output, log_sum_exp, weights, scores, averaged;

 private:
  static std::size_t Size(const SdpaProblem& p, std::int64_t dim) {
    return static_cast<std::size_t>(p.batch() * p.num_heads() * p.query_length() * dim);
  }
  const SdpaProblem& problem_;
};

inline ::testing::AssertionResult SameBits(const SdpaResult& a, const SdpaResult& b) {
  const std::pair<const char*, std::vector<float> SdpaResult::*> parts[] = {{"output", &SdpaResult::output},
                                                                            {"log_sum_exp", &SdpaResult::log_sum_exp},
                                                                            {"weights", &SdpaResult::weights},
                                                                            {"scores", &SdpaResult::scores},
                                                                            {"averaged", &SdpaResult::averaged}};
  for (const auto& [name, part] : parts) {
    if (auto same = SameBits(a.*part, b.*part); !same)
      return ::testing::AssertionFailure() << name << ": " << same.message();
  }
  return ::testing::AssertionSuccess();
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_SDPA_CASE_H_
