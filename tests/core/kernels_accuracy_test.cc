// The kernels against the float64 reference, for every instruction set of this machine, at and around every boundary of
// tiles, vectors, blocks and chunks; and that instruction sets with fused multiply-add agree to the bit.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;

double LargestFinite(const std::vector<double>& numbers) {
  double largest = 0;
  for (double x : numbers) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  }
  return largest;
}

// How far scores may be off beyond the accuracy contract: `score_error` absolute, in natural units. It passes to the
// outputs times the largest value (1), and to log-sum-exps as it is.
void ExpectAccurate(const SdpaCaseSpec& spec, double score_error = 0) {
  SCOPED_TRACE(::testing::PrintToString(spec));
  const SdpaCase sdpa_case(spec);
  const SdpaProblem problem = sdpa_case.Problem();
  const ReferenceResult expected = ReferenceSdpa(problem);
  std::optional<SdpaResult> first_reproducible;
  for (InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(InstructionSetName(set));
    SdpaResult actual(problem);
    ComputeContext context;
    context.instruction_set = set;
    ASSERT_TRUE(ComputeSdpa(problem, actual.Outputs(), context).ok());
    EXPECT_TRUE(AllNear(actual.output, expected.output, 3e-6 + 2 * score_error));
    EXPECT_TRUE(AllNear(actual.weights, expected.attention_weights, 2e-6 + 2 * score_error));
    EXPECT_TRUE(AllNear(actual.averaged, expected.averaged_weights, 2e-6 + 2 * score_error));
    // ALiBi makes scores of any size; float32 keeps 24 bits of them.
    EXPECT_TRUE(AllNear(actual.scores, expected.scores, 1e-5 + score_error + 3e-7 * LargestFinite(expected.scores)));
    EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 1e-5 + score_error));
    if (!IsBitReproducible(set)) continue;
    if (first_reproducible) {
      EXPECT_TRUE(SameBits(*first_reproducible, actual)) << "instruction sets differ";
    } else {
      first_reproducible.emplace(actual);
    }
  }
}

// Attention of `queries` equal queries over keys of zeros, so that every value has the same weight.
float MeanOf(const std::vector<float>& values, std::int64_t queries, InstructionSet set) {
  const auto keys = static_cast<std::int64_t>(values.size());
  const std::vector<float> query(static_cast<std::size_t>(queries)), key(values.size());
  std::vector<float> output(static_cast<std::size_t>(queries));
  const SdpaProblem problem = *SdpaProblem::Create({.query = SplitHeads(query.data(), 1, 1, queries, 1),
                                                    .key = SplitHeads(key.data(), 1, 1, keys, 1),
                                                    .value = SplitHeads(values.data(), 1, 1, keys, 1)});
  ComputeContext context;
  context.instruction_set = set;
  EXPECT_TRUE(ComputeSdpa(problem, {.output = SplitHeads(output.data(), 1, 1, queries, 1)}, context).ok());
  EXPECT_TRUE(std::all_of(output.begin(), output.end(), [&](float x) { return x == output[0]; }));
  return output[0];
}

// Where the rounding errors of a sum all have one sign, they do not cancel; what docs/numerics.md says of that case.
TEST(KernelsAccuracy, EqualValuesStayWithinTheBoundOfSums) {
  for (InstructionSet set : SupportedInstructionSets()) {
    for (float value : {993.28003f, 102.4f, 716.8f, 123.456f, 0.1f, -1.9999999f}) {
      for (std::int64_t keys : {1, 64, 1000, 1024, 1025, 5000, 70000}) {
        const std::vector<float> values(static_cast<std::size_t>(keys), value);
        const double sums =
            static_cast<double>(std::min<std::int64_t>(keys, kKeyChunk)) + static_cast<double>(keys) / 512;
        for (std::int64_t queries : {1, 20}) {
          EXPECT_NEAR(MeanOf(values, queries, set), value, 0x1p-23 * (sums + 8) * std::abs(double{value})) << keys;
        }
      }
    }
  }
}

// A row counts keys up to its own position, of which float32 does not hold all.
TEST(KernelsAccuracy, AlibiBeyondTwoToThe24) {
  constexpr std::int64_t kKeys = (std::int64_t{1} << 24) + 3;
  const std::vector<std::uint16_t> zeros(kKeys);
  const double slope = 1;
  for (std::int64_t queries : {1, 20}) {
    const std::vector<float> query(static_cast<std::size_t>(queries));
    AttentionOptions options;
    options.causal = CausalMode::kBottomRight;
    options.sliding_window_left = 2;
    options.alibi_slopes = absl::MakeConstSpan(&slope, 1);
    const auto narrow = SplitTypedHeads(zeros.data(), DataType::kBFloat16, 1, 1, kKeys, 1);
    const SdpaProblem problem =
        *SdpaProblem::Create({SplitHeads(query.data(), 1, 1, queries, 1), narrow, narrow, options});
    for (InstructionSet set : SupportedInstructionSets()) {
      std::vector<float> log_sum_exp(static_cast<std::size_t>(queries));
      ComputeContext context;
      context.instruction_set = set;
      ASSERT_TRUE(ComputeSdpa(problem, {.log_sum_exp = log_sum_exp.data()}, context).ok());
      for (float sum : log_sum_exp) EXPECT_NEAR(sum, std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-6);
    }
  }
}

constexpr std::int64_t kSizes[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 127, 129};
constexpr std::int64_t kDims[] = {1, 3, 4, 8, 16, 17, 64, 80, 128, 130};

// Options that come and go with the bits of `choice`.
SdpaCaseSpec WithOptions(SdpaCaseSpec spec, unsigned choice) {
  if (choice & 1) spec.causal = CausalMode::kBottomRight;
  if (choice & 2) spec.window_left = spec.keys / 3;
  if (choice & 4) spec.mask = true;
  if (choice & 8) spec.bias = true;
  if (choice & 16) spec.alibi = true;
  if (choice & 32) spec.sinks = true;
  if (choice & 64) spec.softcap = 3.0f;
  if (choice & 128) spec.misaligned = true;
  return spec;
}

TEST(KernelsAccuracy, EveryPairOfLengthsAroundTheTiles) {
  unsigned i = 0;
  for (std::int64_t queries : kSizes) {
    for (std::int64_t keys : kSizes) {
      ++i;
      SdpaCaseSpec spec;
      spec.queries = queries;
      spec.keys = keys;
      spec.head_dim = kDims[i % std::size(kDims)];
      spec.value_dim = kDims[i / std::size(kDims) % std::size(kDims)];
      spec.seed = i;
      ExpectAccurate(spec);
    }
  }
}

TEST(KernelsAccuracy, EveryCombinationOfOptions) {
  for (unsigned choice = 0; choice < 256; ++choice) {
    SdpaCaseSpec spec;
    spec.batch = 2;
    spec.heads = 4;
    spec.kv_heads = choice % 3 == 0 ? 4 : choice % 3 == 1 ? 2 : 1;
    spec.queries = 1 + static_cast<std::int64_t>(choice * 7 % 37);
    spec.keys = 60 + static_cast<std::int64_t>(choice * 11 % 71);
    spec.head_dim = kDims[choice % 6];
    spec.value_dim = kDims[(choice + 3) % 7];
    spec.broadcast = choice % 5 == 0;
    spec.key_mask = choice % 3 == 2;
    spec.seed = choice;
    if (choice % 4 == 1) spec.valid_lengths = {spec.keys / 2, spec.keys};
    if (choice % 4 == 2) spec.query_lengths = {spec.queries / 2, spec.queries};
    ExpectAccurate(WithOptions(spec, choice));
  }
}

TEST(KernelsAccuracy, AroundTheChunksOfKeys) {
  unsigned i = 0;
  for (std::int64_t keys : {1023, 1024, 1025, 2047, 2113, 3072}) {
    for (std::int64_t queries : {1, 8, 9, 50}) {
      SdpaCaseSpec spec;
      spec.queries = queries;
      spec.keys = keys;
      spec.head_dim = i % 2 == 0 ? 16 : 5;
      spec.value_dim = i % 3 == 0 ? 8 : 20;
      spec.seed = ++i;
      ExpectAccurate(WithOptions(spec, i * 37));
    }
  }
}

TEST(KernelsAccuracy, BothCausalModesAndWindowsWithMoreAndFewerQueriesThanKeys) {
  for (CausalMode causal : {CausalMode::kNone, CausalMode::kBottomRight, CausalMode::kTopLeft}) {
    for (std::int64_t window : {-1, 0, 1, 70}) {
      for (auto [queries, keys] : {std::pair<std::int64_t, std::int64_t>{5, 150}, {150, 5}, {90, 90}}) {
        SdpaCaseSpec spec;
        spec.queries = queries;
        spec.keys = keys;
        spec.causal = causal;
        if (window >= 0) spec.window_left = window;
        if (window >= 0 && causal == CausalMode::kNone) spec.window_right = window / 2;
        ExpectAccurate(spec);
      }
    }
  }
}

TEST(KernelsAccuracy, GroupedQueriesOfEverySize) {
  for (std::int64_t group : {1, 2, 3, 8, 50}) {
    for (std::int64_t queries : {1, 7}) {
      SdpaCaseSpec spec;
      spec.batch = 2;
      spec.kv_heads = 2;
      spec.heads = 2 * group;
      spec.queries = queries;
      spec.keys = 70;
      spec.causal = CausalMode::kBottomRight;
      ExpectAccurate(spec);
    }
  }
}

// float32 keeps 24 bits of a score: at 1e4, a spacing of 1e-3. A dot product of D products whose absolute values sum to
// A is off by about sqrt(D) A 2^-24 and by D A 2^-24 at most; the units of log2 add two roundings of the score.
TEST(KernelsAccuracy, LargeScoresAreOffByTheirOwnRoundingOnly) {
  for (float magnitude : {30.0f, 300.0f}) {
    SdpaCaseSpec spec;
    spec.queries = 40;
    spec.keys = 200;
    spec.head_dim = 64;
    spec.magnitude = magnitude;
    const double largest = static_cast<double>(magnitude) * magnitude * 64 / 8 / 4;  // The mean of |q k| is 1/4.
    ExpectAccurate(spec, largest * 3 * 8 / 16777216.0);
  }
}

TEST(KernelsAccuracy, GivenScaleIsUsedWhateverItsSign) {
  for (float scale : {0.0f, -0.5f, 2.0f}) {
    SdpaCaseSpec spec;
    spec.queries = 20;
    spec.keys = 30;
    spec.scale = scale;
    ExpectAccurate(spec);
  }
}

TEST(KernelsAccuracy, SoftcapFromTinyToHuge) {
  for (float softcap : {0.01f, 1.0f, 50.0f, 1e6f}) {
    SdpaCaseSpec spec;
    spec.queries = 20;
    spec.keys = 130;
    spec.softcap = softcap;
    ExpectAccurate(spec);
  }
}

// Rising scores move the maximum in every block, falling ones never, and steps of nearly 8 in log2 do so lazily.
TEST(KernelsAccuracy, MaximumMovesLateOrLazily) {
  for (float step : {5.4f, 5.6f, -5.5f, 40.0f, -40.0f}) {
    SdpaCaseSpec spec;
    spec.queries = 10;
    spec.keys = 1300;
    spec.head_dim = 1;
    spec.scale = 1.0f;
    SdpaCase sdpa_case(spec);
    for (float& q : sdpa_case.query) q = 1;
    for (std::size_t j = 0; j < sdpa_case.key.size(); ++j) {
      const std::size_t block = j / 64;
      sdpa_case.key[j] = step * static_cast<float>(block);
    }
    const SdpaProblem problem = sdpa_case.Problem();
    const ReferenceResult expected = ReferenceSdpa(problem);
    for (InstructionSet set : SupportedInstructionSets()) {
      SdpaResult actual(problem);
      ComputeContext context;
      context.instruction_set = set;
      ASSERT_TRUE(ComputeSdpa(problem, actual.Outputs(), context).ok());
      const double score_error = 800.0 * 3 / 16777216;
      EXPECT_TRUE(AllNear(actual.output, expected.output, 3e-6 + score_error)) << step << InstructionSetName(set);
      EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 1e-5 + score_error)) << step;
    }
  }
}

}  // namespace
}  // namespace attend
