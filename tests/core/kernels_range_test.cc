// Finite inputs whose arithmetic leaves float32's range: results are those of float64, rounded once.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/runtime/executor.h"
#include "gtest/gtest.h"
#include "tests/support/edge_of_range.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::Ask;
using testing::EdgeOfRange;
using testing::kEdgesOfRange;
using testing::kLargest;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;
using testing::TypedTensor;

constexpr double kInf = std::numeric_limits<double>::infinity();

// Few rows go one way through the kernels, many another; the last has chunks of keys.
std::vector<SdpaCaseSpec> Shapes() {
  std::vector<SdpaCaseSpec> shapes(4);
  shapes[0].queries = 1, shapes[0].keys = 1, shapes[0].value_dim = 3;
  shapes[1].queries = 3, shapes[1].keys = 6, shapes[1].heads = 2;
  shapes[2].queries = 40, shapes[2].keys = 90, shapes[2].head_dim = 5, shapes[2].value_dim = 17;
  shapes[3].queries = 2, shapes[3].keys = 1100, shapes[3].heads = 4, shapes[3].kv_heads = 2;
  return shapes;
}

// Rounded to float32, so beyond its range infinite. Tolerances are relative to the larger of both and the largest.
::testing::AssertionResult Near(const char* what, const std::vector<float>& actual, const std::vector<double>& expected,
                                double relative, double absolute) {
  if (actual.size() != expected.size()) return ::testing::AssertionFailure() << what << ": " << actual.size();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i], e = static_cast<float>(expected[i]);
    if (a == e || (std::isfinite(e) && std::abs(a - e) <= relative * std::abs(e) + absolute)) continue;
    return ::testing::AssertionFailure() << what << "[" << i << "] is " << a << ", expected " << e;
  }
  return ::testing::AssertionSuccess();
}

double Largest(const std::vector<float>& numbers) {
  double largest = 0;
  for (const float x : numbers) largest = std::max(largest, std::abs(double{x}));
  return largest;
}

SdpaResult Compute(const SdpaProblem& problem, InstructionSet set, Executor* executor = nullptr,
                   Ask ask = Ask::kEverything) {
  SdpaResult result(problem, ask);
  EXPECT_TRUE(ComputeSdpa(problem, result.Outputs(), {.executor = executor, .instruction_set = set}).ok());
  return result;
}

class Edges : public ::testing::TestWithParam<EdgeOfRange> {};

TEST_P(Edges, FiniteInputsGiveWhatFloat64Gives) {
  for (SdpaCaseSpec spec : Shapes()) {
    GetParam().prepare(spec);
    SdpaCase sdpa_case(spec);
    GetParam().apply(sdpa_case);
    SCOPED_TRACE(::testing::PrintToString(spec));
    const SdpaProblem problem = sdpa_case.Problem();
    const ReferenceResult expected = ReferenceSdpa(problem);
    const double value = Largest(sdpa_case.value);
    std::optional<SdpaResult> reproducible;
    for (const InstructionSet set : SupportedInstructionSets()) {
      SCOPED_TRACE(InstructionSetName(set));
      const SdpaResult actual = Compute(problem, set);
      EXPECT_TRUE(Near("output", actual.output, expected.output, 0, 2e-6 * value + 1e-6));
      EXPECT_TRUE(Near("log_sum_exp", actual.log_sum_exp, expected.log_sum_exp, 3e-7, 1e-5));
      EXPECT_TRUE(Near("weights", actual.weights, expected.attention_weights, 0, 2e-6));
      EXPECT_TRUE(Near("averaged", actual.averaged, expected.averaged_weights, 0, 2e-6));
      EXPECT_TRUE(Near("scores", actual.scores, expected.scores, 5e-7, 1e-5));
      const SdpaResult alone = Compute(problem, set, nullptr, Ask::kOutput);
      EXPECT_TRUE(SameBits(alone.output, actual.output)) << "the output alone";
      EXPECT_TRUE(SameBits(Compute(problem, set, nullptr, Ask::kPerHead).weights, actual.weights));
      if (!IsBitReproducible(set)) continue;
      if (!reproducible) reproducible.emplace(actual);
      EXPECT_TRUE(SameBits(*reproducible, actual)) << "instruction sets differ";
    }
  }
}

TEST_P(Edges, BitsDoNotDependOnThreads) {
  Executor executor({.num_threads = 4});
  SdpaCaseSpec spec;
  spec.queries = 3, spec.keys = 2500, spec.head_dim = spec.value_dim = 64;
  GetParam().prepare(spec);
  SdpaCase sdpa_case(spec);
  GetParam().apply(sdpa_case);
  const SdpaProblem problem = sdpa_case.Problem();
  const InstructionSet set = BestInstructionSet();
  EXPECT_TRUE(SameBits(Compute(problem, set, nullptr, Ask::kPerHead), Compute(problem, set, &executor, Ask::kPerHead)));
}

// What float32 may not notice because of what else is there must not be noticed because of what is masked either.
TEST_P(Edges, MaskedKeysDoNotDecideHowARowIsComputed) {
  for (const std::int64_t queries : {3, 40}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 100;
    spec.valid_lengths = {90};
    spec.window_left = 20;
    GetParam().prepare(spec);
    SdpaCase sdpa_case(spec);
    GetParam().apply(sdpa_case);
    const SdpaProblem problem = sdpa_case.Problem();
    const std::vector<float> key = sdpa_case.key, value = sdpa_case.value;
    for (const InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult clean = Compute(problem, set);
      for (const float poison :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), -kLargest, 1e30f}) {
        for (std::size_t i = 90 * 8; i < key.size(); ++i) sdpa_case.key[i] = sdpa_case.value[i] = poison;
        EXPECT_TRUE(SameBits(clean, Compute(problem, set))) << poison << " " << InstructionSetName(set);
      }
      sdpa_case.key = key, sdpa_case.value = value;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Edges, ::testing::ValuesIn(kEdgesOfRange), [](const auto& edge) {
  std::string name = edge.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Such a softcap allows no score that differs from 0; without it these scores would be 1e5 times the products.
TEST(KernelsRange, ASoftcapThatFloat32CannotHoldStillCaps) {
  for (const std::int64_t queries : {3, 40}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 70;
    SdpaCase sdpa_case(spec);
    sdpa_case.options.scale = 1e-45, sdpa_case.options.softcap = 1e-50;
    const SdpaProblem problem = sdpa_case.Problem();
    const ReferenceResult expected = ReferenceSdpa(problem);
    for (const InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult actual = Compute(problem, set);
      EXPECT_TRUE(Near("weights", actual.weights, expected.attention_weights, 0, 2e-6));
      EXPECT_TRUE(Near("output", actual.output, expected.output, 0, 3e-6));
    }
  }
}

// Scores below float64's range, of FLOAT32 too: nothing says how they compare. A key within it is then alone.
TEST(KernelsRange, ScoresBelowFloat64sRangeAreNotTakenForMasked) {
  const std::vector<float> query(1, 1e38f), value = {5, 7};
  const auto output = [&](const std::vector<float>& key, const AttentionOptions& options, InstructionSet set) {
    const SdpaProblem problem =
        *SdpaProblem::Create({SplitHeads(query.data(), 1, 1, 1, 1), SplitHeads(key.data(), 1, 1, 2, 1),
                              SplitHeads(value.data(), 1, 1, 2, 1), options});
    SdpaResult result(problem);
    EXPECT_TRUE(ComputeSdpa(problem, result.Outputs(), {.instruction_set = set}).ok());
    return result.output[0];
  };
  const std::vector<std::uint8_t> none = {0, 0};
  AttentionOptions masked{.scale = 1e300};
  masked.mask = SplitHeads(none.data(), 1, 1, 1, 2);
  for (const InstructionSet set : SupportedInstructionSets()) {
    EXPECT_TRUE(std::isnan(output({-1, -2}, {.scale = 1e300}, set)));
    EXPECT_EQ(output({-1, 0}, {.scale = 1e300}, set), 7);
    EXPECT_EQ(output({-1, -2}, masked, set), 0);
  }
}

// What is within the range, however low, has all the weight.
TEST(KernelsRange, ScoresBelowFloat64sRangeWeighNothingBesideASink) {
  const float query = 1e38f;
  const std::vector<float> key = {-1, -2}, value = {5, 7};
  for (const float sink : {2.0f, -kLargest, std::numeric_limits<float>::infinity()}) {
    const std::vector<float> sinks = {sink};
    const SdpaProblem problem =
        *SdpaProblem::Create({SplitHeads(&query, 1, 1, 1, 1), SplitHeads(key.data(), 1, 1, 2, 1),
                              SplitHeads(value.data(), 1, 1, 2, 1), AttentionOptions{.scale = 1e300, .sinks = sinks}});
    for (const InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult result = Compute(problem, set);
      if (std::isinf(sink)) {
        EXPECT_TRUE(std::isnan(result.output[0])) << "as beside any key";
        continue;
      }
      EXPECT_EQ(result.output[0], 0);
      EXPECT_EQ(result.weights, (std::vector<float>{0, 0}));
      EXPECT_EQ(result.averaged, (std::vector<float>{0, 0}));
      EXPECT_EQ(result.log_sum_exp[0], sink);
    }
  }
}

// ALiBi lifts the first key, whose bias is just below what float32 holds in units of log2, above the second, whose bias
// is just within. Not one of kEdgesOfRange, because bits of all those are on record.
TEST(KernelsRange, AlibiLiftsWhatABiasTookBelowTheRange) {
  const std::vector<float> key(2, 0.0f), value = {5, 7}, bias = {-2.35867e38f, -2.35865e38f}, slopes = {-3e34f};
  for (const std::int64_t queries : {3, 40}) {
    const std::vector<float> query(static_cast<std::size_t>(queries), 0.0f);
    const SdpaProblem problem = *SdpaProblem::Create(
        {SplitHeads(query.data(), 1, 1, queries, 1), SplitHeads(key.data(), 1, 1, 2, 1),
         SplitHeads(value.data(), 1, 1, 2, 1),
         AttentionOptions{
             .causal = CausalMode::kTopLeft, .bias = SplitHeads(bias.data(), 1, 1, 1, 2), .alibi_slopes = slopes}});
    for (const InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult result = Compute(problem, set, nullptr, Ask::kPerHead);
      for (std::int64_t t = 0; t < queries; ++t) {
        EXPECT_EQ(result.output[t], 5) << t;
        EXPECT_EQ(result.weights[2 * t], 1) << t;
      }
      EXPECT_EQ(Compute(problem, set, nullptr, Ask::kOutput).output, result.output);
    }
  }
}

// One row of many leaves the range: its neighbours keep the bits that they have without it.
TEST(KernelsRange, OnlyTheRowThatOverflowsIsComputedAgain) {
  for (const std::int64_t queries : {3, 40}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 130;
    SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    for (const InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult clean = Compute(problem, set);
      const float saved = sdpa_case.query[8];
      sdpa_case.query[8] = 3e38f;  // Row 1.
      SdpaResult actual = Compute(problem, set);
      sdpa_case.query[8] = saved;
      for (const float x : actual.output) EXPECT_TRUE(std::isfinite(x));
      std::copy_n(clean.output.begin() + 8, 8, actual.output.begin() + 8);
      EXPECT_TRUE(SameBits(clean.output, actual.output)) << InstructionSetName(set);
    }
  }
}

// A thread keeps the memory of a small problem for its next, but not what it found out about keys.
TEST(KernelsRange, KeysOfTheProblemBeforeSayNothing) {
  for (const std::int64_t queries : {3, 40}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 70;
    SdpaCase sdpa_case(spec);
    std::fill(sdpa_case.query.begin(), sdpa_case.query.end(), 0.0f);
    for (const std::size_t dim : {0, 1}) testing::edge::Set(sdpa_case.query, dim, 8, 4e19f);
    const std::vector<float> small = sdpa_case.key;
    std::vector<float> cancels(small.size());  // Key 1's products are -1.6e39 and 1.6e39, all others 0.
    cancels[8] = -4e19f, cancels[9] = 4e19f;
    const SdpaProblem problem = sdpa_case.Problem();
    for (const InstructionSet set : SupportedInstructionSets()) {
      sdpa_case.key = small;
      Compute(problem, set, nullptr, Ask::kOutput);
      sdpa_case.key = cancels;
      const SdpaResult actual = Compute(problem, set, nullptr, Ask::kOutput);
      EXPECT_TRUE(Near("output", actual.output, ReferenceSdpa(problem).output, 0, 3e-6)) << InstructionSetName(set);
    }
  }
}

// What a value, key or bias that is infinite does to a row is as it is without other rows that overflow.
TEST(KernelsRange, InfiniteInputsBesideOverflowKeepTheirMeaning) {
  for (const std::int64_t queries : {3, 40}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 70;
    spec.bias = true;
    SdpaCase sdpa_case(spec);
    for (std::int64_t j = 0; j < spec.keys; ++j) sdpa_case.bias[j] = -kLargest;  // Row 0.
    const SdpaProblem problem = sdpa_case.Problem();
    for (const InstructionSet set : SupportedInstructionSets()) {
      SCOPED_TRACE(InstructionSetName(set));
      sdpa_case.key[8] = -std::numeric_limits<float>::infinity();  // Of key 1, whose score is +-infinity.
      const SdpaResult actual = Compute(problem, set);
      sdpa_case.key[8] = 0;
      for (std::int64_t t = 0; t < queries; ++t) {
        const bool below = sdpa_case.query[t * 8] > 0;  // Then the key is as if masked, which is not NaN.
        EXPECT_EQ(std::isnan(actual.output[t * 8]), !below) << t;
        EXPECT_NE(actual.output[t * 8], 0) << t;
      }
    }
  }
}

TEST(KernelsRange, SixteenBitsGiveTheBitsOfFloat32) {
  for (const EdgeOfRange& edge : kEdgesOfRange) {
    for (const std::int64_t queries : {3, 40}) {
      SdpaCaseSpec spec;
      spec.queries = queries, spec.keys = 70;
      edge.prepare(spec);
      SdpaCase c(spec);
      edge.apply(c);
      const auto narrow = [](std::vector<float>& numbers) {
        for (float& x : numbers) x = std::clamp(x, -3.38e38f, 3.38e38f);  // BFLOAT16 ends there.
        const TypedTensor tensor =
            TypedTensor::From(std::vector<double>(numbers.begin(), numbers.end()), DataType::kBFloat16);
        const std::vector<double> rounded = tensor.Doubles();
        std::copy(rounded.begin(), rounded.end(), numbers.begin());
        return tensor;
      };
      const TypedTensor q = narrow(c.query), k = narrow(c.key), v = narrow(c.value);
      const SdpaProblem typed =
          *SdpaProblem::Create({q.View(1, 1, queries, 8), k.View(1, 1, 70, 8), v.View(1, 1, 70, 8), c.options});
      const SdpaResult wide = Compute(c.Problem(), BestInstructionSet());
      TypedTensor output(DataType::kBFloat16, c.query.size());
      ASSERT_TRUE(ComputeSdpa(typed, {.output = output.MutableView(1, 1, queries, 8)}, {}).ok());
      const TypedTensor expected =
          TypedTensor::From(std::vector<double>(wide.output.begin(), wide.output.end()), DataType::kBFloat16);
      EXPECT_EQ(output.Doubles(), expected.Doubles()) << edge.name;
    }
  }
}

TEST(KernelsRange, SequencesOfARaggedBatchToo) {
  SdpaCaseSpec spec;
  spec.queries = 30, spec.keys = 60;
  SdpaCase c(spec);
  for (std::size_t i = 0; i < c.query.size(); i += 8) c.query[i] = 3e38f;
  const std::vector<std::int64_t> queries = {0, 3, 30}, keys = {0, 20, 60};
  c.options.cumulative_query_lengths = queries;
  c.options.cumulative_key_lengths = keys;
  const SdpaProblem problem = c.Problem();
  SdpaResult actual(problem, Ask::kOutput);
  ASSERT_TRUE(ComputeSdpa(problem, actual.Outputs(), {}).ok());
  EXPECT_TRUE(Near("output", actual.output, ReferenceSdpa(problem).output, 0, 3e-6));
}

// One head of FLOAT64 with its output, scores and log-sum-exp.
struct DoubleRowResult {
  std::vector<double> output, scores;
  float log_sum_exp;
};
DoubleRowResult ComputeDouble(const std::vector<double>& query, const std::vector<double>& key,
                              const std::vector<double>& value, const AttentionOptions& options, InstructionSet set) {
  const auto keys = static_cast<std::int64_t>(value.size());
  const auto dim = static_cast<std::int64_t>(query.size());
  const SdpaProblem problem =
      *SdpaProblem::Create({SplitHeads(query.data(), 1, 1, 1, dim), SplitHeads(key.data(), 1, 1, keys, dim),
                            SplitHeads(value.data(), 1, 1, keys, 1), options});
  DoubleRowResult result{{0}, std::vector<double>(value.size()), 0};
  const SdpaOutputs outputs{.output = SplitHeads(result.output.data(), 1, 1, 1, 1),
                            .scores = SplitHeads(result.scores.data(), 1, 1, 1, keys),
                            .log_sum_exp = &result.log_sum_exp};
  EXPECT_TRUE(ComputeSdpa(problem, outputs, {.instruction_set = set}).ok());
  return result;
}

TEST(KernelsRange, Float64SumsNearItsLargestNumber) {
  const double largest = std::numeric_limits<double>::max();
  for (const InstructionSet set : SupportedInstructionSets()) {
    const std::vector<double> zero(3, 0.0);
    EXPECT_EQ(ComputeDouble({1}, zero, {largest, largest, largest}, {}, set).output[0], largest);
    EXPECT_NEAR(ComputeDouble({1}, zero, {largest, largest, -largest}, {}, set).output[0] / largest, 1.0 / 3, 1e-15);
  }
}

TEST(KernelsRange, Float64ScoresBeyondItsRangeAreNotTakenForMasked) {
  for (const InstructionSet set : SupportedInstructionSets()) {
    // All below: what they differ by is not known.
    EXPECT_TRUE(std::isnan(ComputeDouble({-1e200}, {1e200, 2e200}, {1, 2}, {.scale = 1}, set).output[0]));
    EXPECT_TRUE(std::isnan(ComputeDouble({1e200}, {1e200, 1}, {1, 2}, {.scale = 1}, set).output[0]));
    // One below: it weighs nothing.
    EXPECT_EQ(ComputeDouble({-1e200}, {1e200, 1e-200}, {1, 2}, {.scale = 1}, set).output[0], 2);
    // Beyond on the way alone: 2^1400 - 2^1400 + 1, and the same + 2.
    const double big = 0x1p700;
    const DoubleRowResult cancels =
        ComputeDouble({big, big, 1}, {big, -big, 1, big, -big, 2}, {1, 2}, {.scale = 1}, set);
    EXPECT_EQ(cancels.scores, (std::vector<double>{1, 2}));
    EXPECT_NEAR(cancels.output[0], (1 + 2 * std::exp(1)) / (1 + std::exp(1)), 1e-15);
    // A product within the range by its scale, and by its bias.
    const DoubleRowResult scaled = ComputeDouble({1e200}, {1e200, 2e200}, {1, 2}, {.scale = 1e-300}, set);
    EXPECT_NEAR(scaled.scores[0] / 1e100, 1, 1e-15);
    EXPECT_EQ(scaled.output[0], 2);
    const std::vector<double> lowest(2, std::numeric_limits<double>::lowest());
    const AttentionOptions biased{.scale = 1, .bias = SplitHeads(lowest.data(), 1, 1, 1, 2)};
    EXPECT_EQ(ComputeDouble({0}, {1, 1}, {1, 3}, biased, set).output[0], 2);
    // Numbers that only a very large scale brings there.
    EXPECT_TRUE(std::isnan(ComputeDouble({1e-200}, {1e300, 0}, {1, 3}, {.scale = 1e300}, set).output[0]));
    EXPECT_EQ(ComputeDouble({1e-200}, {-1e300, 0}, {1, 3}, {.scale = 1e300}, set).output[0], 3);
    const std::vector<double> low(2, -1.7e308);
    const AttentionOptions far{.scale = 1.9e300, .bias = SplitHeads(low.data(), 1, 1, 1, 2)};
    const DoubleRowResult within = ComputeDouble({1e200}, {1e-192, 1.02e-192}, {1, 3}, far, set);
    EXPECT_NEAR(within.scores[1] / 2.38e307, 1, 1e-12);
    EXPECT_EQ(within.output[0], 3);
    // A softcap caps what is beyond the range.
    EXPECT_EQ(ComputeDouble({1e200}, {1e200, -1e200}, {1, 2}, {.scale = 1, .softcap = 1e3}, set).output[0], 1);
  }
}

// It may be the first or the last of the keys.
TEST(KernelsRange, TheOnlyVisibleKeyBelowFloat64sRangeIsNotTakenForMasked) {
  const std::vector<float> query(1, 1e38f), key(3, -1.0f), value = {5, 7, 9};
  for (const std::size_t visible : {0, 1, 2}) {
    std::vector<std::uint8_t> mask(3, 0);
    mask[visible] = 1;
    AttentionOptions options{.scale = 1e300};
    options.mask = SplitHeads<const std::uint8_t>(mask.data(), 1, 1, 1, 3);
    const SdpaProblem problem =
        *SdpaProblem::Create({SplitHeads(query.data(), 1, 1, 1, 1), SplitHeads(key.data(), 1, 1, 3, 1),
                              SplitHeads(value.data(), 1, 1, 3, 1), options});
    for (const InstructionSet set : SupportedInstructionSets()) {
      EXPECT_TRUE(std::isnan(Compute(problem, set, nullptr, Ask::kOutput).output[0])) << visible;
      EXPECT_TRUE(std::isnan(ComputeDouble({1e200}, {-1, -1, -1}, {5, 7, 9}, options, set).output[0])) << visible;
    }
  }
}

// What a softcap makes of an infinite product is finite, and not the score where only the way to it was too long.
TEST(KernelsRange, Float64SoftcapCapsTheScoreAndNotTheOverflow) {
  for (const InstructionSet set : SupportedInstructionSets()) {
    // Scores of 1e5 and 2e5 by way of 1e310 and 2e310.
    const DoubleRowResult scaled =
        ComputeDouble({1e155}, {1e155, 2e155}, {1, 2}, {.scale = 1e-305, .softcap = 5e4}, set);
    EXPECT_NEAR(scaled.scores[0] / 5e4, std::tanh(2.0), 1e-14);
    EXPECT_NEAR(scaled.scores[1] / 5e4, std::tanh(4.0), 1e-14);
    EXPECT_EQ(scaled.output[0], 2);
    // One of the sums that are added up in the end is infinite, the score is not.
    const DoubleRowResult cancels =
        ComputeDouble({2e154, 1.5e154}, {1e154, -1e154}, {1}, {.scale = 1, .softcap = 5e307}, set);
    EXPECT_NEAR(cancels.scores[0] / 5e307, std::tanh(1.0), 1e-14);
    // A score of 2e308, beyond the range, of which the softcap leaves a number.
    const DoubleRowResult capped = ComputeDouble({2e154}, {1e154}, {1}, {.scale = 1, .softcap = 1.6e308}, set);
    EXPECT_NEAR(capped.scores[0] / 1.6e308, std::tanh(1.25), 1e-14);
    // A key that is infinite has the score that the softcap leaves of it, as in FLOAT32.
    const DoubleRowResult infinite = ComputeDouble({1}, {kInf, 1}, {1, 2}, {.scale = 1, .softcap = 1e3}, set);
    EXPECT_EQ(infinite.scores[0], 1e3);
    EXPECT_EQ(infinite.output[0], 1);
  }
}

// FLOAT32 takes a scale and a softcap as they are that it cannot hold: scores of 2e308 and 4e308 before the softcap.
TEST(KernelsRange, ASoftcapNearFloat64sLargestNumberCapsFloat32Too) {
  const float query = 2e4f;
  const std::vector<float> key = {1e4f, 2e4f}, value = {5, 7};
  const SdpaProblem problem = *SdpaProblem::Create({SplitHeads(&query, 1, 1, 1, 1), SplitHeads(key.data(), 1, 1, 2, 1),
                                                    SplitHeads(value.data(), 1, 1, 2, 1),
                                                    AttentionOptions{.scale = 1e300, .softcap = 1.6e308}});
  for (const InstructionSet set : SupportedInstructionSets()) {
    EXPECT_EQ(Compute(problem, set, nullptr, Ask::kOutput).output[0], 7);
  }
}

TEST(KernelsRange, Float64ScoresBelowItsRangeWeighNothingBesideASink) {
  for (const double sink : {2.0, std::numeric_limits<double>::lowest()}) {
    const std::vector<double> sinks = {sink};
    for (const InstructionSet set : SupportedInstructionSets()) {
      const DoubleRowResult result = ComputeDouble({-1e200}, {1e200, 2e200}, {1, 2}, {.scale = 1, .sinks = sinks}, set);
      EXPECT_EQ(result.output[0], 0);
      EXPECT_EQ(result.log_sum_exp, static_cast<float>(sink));
    }
  }
}

TEST(KernelsRange, Float64KeepsMaskedKeysMaskedBesideOverflow) {
  const std::vector<double> bias = {-kInf, 0};
  const AttentionOptions masked{.scale = 1, .bias = SplitHeads(bias.data(), 1, 1, 1, 2)};
  for (const InstructionSet set : SupportedInstructionSets()) {
    const DoubleRowResult result = ComputeDouble({1e200}, {1e200, 1e-200}, {1, 2}, masked, set);
    EXPECT_EQ(result.output[0], 2);
    EXPECT_EQ(result.scores[0], -kInf);
  }
}

TEST(KernelsRange, Float64KeepsMaskedKeysMasked) {
  const std::vector<double> minus_infinity(2, -kInf);
  const AttentionOptions masked{.bias = SplitHeads(minus_infinity.data(), 1, 1, 1, 2)};
  for (const InstructionSet set : SupportedInstructionSets()) {
    const DoubleRowResult result = ComputeDouble({1}, {1, 2}, {1, 2}, masked, set);
    EXPECT_EQ(result.output[0], 0);
    EXPECT_EQ(result.log_sum_exp, -static_cast<float>(kInf));
  }
}

}  // namespace
}  // namespace attend
