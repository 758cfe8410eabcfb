// Guards the float64 reference, which judges the kernels: against cases computed by hand, laws that softmax obeys, and
// PyTorch.
#include "core/reference/reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/golden_file.h"
#include "tests/support/heads_tensor.h"

namespace attend {
namespace {

using testing::AllNear;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::GoldenFile;
using testing::GoldenTensor;
using testing::HeadsTensor;
using testing::RandomHeads;
using testing::ReadGoldenFile;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

ReferenceResult Attend(const HeadsTensor<float>& query, const HeadsTensor<float>& key, const HeadsTensor<float>& value,
                       const AttentionOptions& options = {}) {
  const auto problem =
      SdpaProblem::Create({.query = query.View(), .key = key.View(), .value = value.View(), .options = options});
  EXPECT_TRUE(problem.ok()) << problem.status();
  return ReferenceSdpa(*problem);
}

// Scores that are what they say: E = 1, scale 1, query 1, so that the score of key j is key[j].
ReferenceResult AttendScores(const std::vector<float>& scores, const std::vector<float>& values,
                             AttentionOptions options = {}) {
  options.scale = options.scale.value_or(1.0f);
  const auto keys = static_cast<std::int64_t>(scores.size());
  return Attend({1, 1, {1.0f}}, {keys, 1, scores}, {keys, 1, values}, options);
}

const double kE = std::exp(1.0);

TEST(ReferenceByHand, TwoQueriesAndTwoKeys) {
  // Scores [[2, 0], [0, 2]] / sqrt(4) = [[1, 0], [0, 1]].
  const ReferenceResult result =
      Attend({2, 4, {2, 0, 0, 0, 0, 2, 0, 0}}, {2, 4, {1, 0, 0, 0, 0, 1, 0, 0}}, {2, 1, {10, 20}});
  EXPECT_THAT(result.scores, ElementsAre(1, 0, 0, 1));
  const double big = kE / (kE + 1), small = 1 / (kE + 1);
  EXPECT_TRUE(AllNear(result.attention_weights, std::vector<double>{big, small, small, big}, 1e-15));
  EXPECT_TRUE(AllNear(result.output, std::vector<double>{10 * big + 20 * small, 10 * small + 20 * big}, 1e-14));
  EXPECT_TRUE(AllNear(result.log_sum_exp, std::vector<double>(2, std::log(kE + 1)), 1e-15));
}

TEST(ReferenceByHand, SoftcapComesAfterScaleAndBeforeBias) {
  const HeadsTensor<float> bias(1, 2, {0.0f, 100.0f});
  const ReferenceResult result = AttendScores({1, -6}, {0, 0}, {.scale = 2.0f, .softcap = 4.0f, .bias = bias.View()});
  EXPECT_TRUE(AllNear(result.scores, std::vector<double>{4 * std::tanh(0.5), 4 * std::tanh(-3.0) + 100}, 1e-13));
}

TEST(ReferenceByHand, AlibiFallsWithTheDistanceFromThePosition) {
  const std::vector<float> slopes = {0.5f};
  const HeadsTensor<float> query(2, 1, {0, 0}), keys(4, 1, {0, 0, 0, 0});
  AttentionOptions options{.alibi_slopes = slopes};  // Two queries at positions 2 and 3.
  EXPECT_THAT(Attend(query, keys, keys, options).scores, ElementsAre(-1, -0.5, 0, -0.5, -1.5, -1, -0.5, 0));
  options.causal = CausalMode::kTopLeft;  // At positions 0 and 1.
  EXPECT_THAT(Attend(query, keys, keys, options).scores,
              ElementsAre(0, -kInfinity, -kInfinity, -kInfinity, -0.5, 0, -kInfinity, -kInfinity));
}

TEST(ReferenceByHand, SinkIsInTheDenominatorAlone) {
  const std::vector<float> sinks = {1.0f};
  const ReferenceResult result = AttendScores({0, 0}, {3, 5}, {.sinks = sinks});
  EXPECT_TRUE(AllNear(result.attention_weights, std::vector<double>(2, 1 / (2 + kE)), 1e-15));
  EXPECT_TRUE(AllNear(result.output, std::vector<double>{8 / (2 + kE)}, 1e-14));
  EXPECT_TRUE(AllNear(result.log_sum_exp, std::vector<double>{std::log(2 + kE)}, 1e-15));
  EXPECT_THAT(result.scores, ElementsAre(0, 0));
}

TEST(ReferenceByHand, HugeSinkSwallowsEverything) {
  const std::vector<float> sinks = {1e4f};
  const ReferenceResult result = AttendScores({0, 7}, {3, 5}, {.sinks = sinks});
  EXPECT_THAT(result.output, ElementsAre(0));
  EXPECT_THAT(result.log_sum_exp, ElementsAre(DoubleNear(1e4, 1e-9)));
}

TEST(ReferenceByHand, BottomRightShowsAllKeysToTheLastQuery) {
  const HeadsTensor<float> query(2, 1, {0, 0}), keys(3, 1, {0, 0, 0}), values(3, 1, {1, 2, 4});
  const auto bottom_right = Attend(query, keys, values, {.causal = CausalMode::kBottomRight});
  EXPECT_TRUE(AllNear(bottom_right.output, std::vector<double>{3.0 / 2, 7.0 / 3}, 1e-15));
  const auto top_left = Attend(query, keys, values, {.causal = CausalMode::kTopLeft});
  EXPECT_TRUE(AllNear(top_left.output, std::vector<double>{1, 3.0 / 2}, 1e-15));
}

TEST(ReferenceByHand, QueryHeadsShareKeyHeadsInGroups) {
  const HeadsTensor<float> query(1, 4, 1, 1);
  HeadsTensor<float> value(1, 2, 1, 1);
  value.elements = {10, 20};
  EXPECT_THAT(Attend(query, HeadsTensor<float>(1, 2, 1, 1), value).output, ElementsAre(10, 10, 20, 20));
}

TEST(ReferenceByHand, AveragedWeightsAreTheMeanOverQueryHeads) {
  HeadsTensor<float> query(1, 2, 1, 1);
  query.elements = {0, 100};  // Head 0 is undecided, head 1 sees only key 1.
  const ReferenceResult result = Attend(query, {2, 1, {0, 50}}, {2, 1, {0, 0}});
  EXPECT_THAT(result.attention_weights, ElementsAre(0.5, 0.5, 0, 1));
  EXPECT_THAT(result.averaged_weights, ElementsAre(0.25, 0.75));
}

TEST(ReferenceLaw, ConstantValuesGiveThatConstant) {
  const HeadsTensor<float> value(2, 3, 9, 4, 7.0f);
  const auto result = Attend(RandomHeads(2, 3, 5, 8, 1), RandomHeads(2, 3, 9, 8, 2), value);
  EXPECT_THAT(result.output, Each(DoubleNear(7, 1e-14)));
}

TEST(ReferenceLaw, OneHugeScoreSelectsItsValue) {
  const ReferenceResult result = AttendScores({0, 1e6f, -1e6f}, {3, 5, 7});
  EXPECT_THAT(result.output, ElementsAre(5));
  EXPECT_THAT(result.attention_weights, ElementsAre(0, 1, 0));
  EXPECT_THAT(result.log_sum_exp, ElementsAre(1e6));
}

TEST(ReferenceLaw, EqualScoresGiveTheMean) {
  EXPECT_THAT(AttendScores({3, 3, 3, 3}, {1, 2, 4, 9}).output, ElementsAre(DoubleNear(4, 1e-15)));
}

TEST(ReferenceLaw, AddingAConstantToAllScoresMovesOnlyTheLogSumExp) {
  const auto query = RandomHeads(1, 2, 3, 4, 1), key = RandomHeads(1, 2, 7, 4, 2), value = RandomHeads(1, 2, 7, 5, 3);
  const HeadsTensor<float> constant(1, 1, 1, 1, 1000.0f);
  const ReferenceResult plain = Attend(query, key, value);
  ReferenceResult shifted = Attend(query, key, value, {.bias = constant.View()});
  EXPECT_TRUE(AllNear(shifted.output, plain.output, 1e-12));
  for (double& log_sum_exp : shifted.log_sum_exp) log_sum_exp -= 1000;
  EXPECT_TRUE(AllNear(shifted.log_sum_exp, plain.log_sum_exp, 1e-12));
}

TEST(ReferenceLaw, RepeatingEveryKeyAddsLogTwoToTheLogSumExpAndNothingElse) {
  const auto query = RandomHeads(1, 1, 3, 4, 1), key = RandomHeads(1, 1, 7, 4, 2), value = RandomHeads(1, 1, 7, 5, 3);
  HeadsTensor<float> keys(14, 4, key.elements), values(14, 5, value.elements);
  keys.elements.insert(keys.elements.end(), key.elements.begin(), key.elements.end());
  values.elements.insert(values.elements.end(), value.elements.begin(), value.elements.end());
  const ReferenceResult once = Attend(query, key, value);
  ReferenceResult twice = Attend(query, keys, values);
  EXPECT_TRUE(AllNear(twice.output, once.output, 1e-14));
  for (double& log_sum_exp : twice.log_sum_exp) log_sum_exp -= std::log(2.0);
  EXPECT_TRUE(AllNear(twice.log_sum_exp, once.log_sum_exp, 1e-14));
}

TEST(ReferenceLaw, MergedHeadsAreTheSameTensorSeenDifferently) {
  const auto query = RandomHeads(2, 3, 4, 5, 1), key = RandomHeads(2, 3, 6, 5, 2), value = RandomHeads(2, 3, 6, 2, 3);
  HeadsTensor<float> merged(2, 6, 3, 2);  // [B, S, K, V]
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t h = 0; h < 3; ++h) {
      for (std::int64_t t = 0; t < 6; ++t) {
        for (std::int64_t d = 0; d < 2; ++d) merged.At(b, t, h, d) = value.View().Row(b, h, t)[d];
      }
    }
  }
  const auto view = MergedHeads<const float>(merged.elements.data(), 2, 3, 6, 2);
  const auto problem = SdpaProblem::Create({.query = query.View(), .key = key.View(), .value = view});
  EXPECT_EQ(ReferenceSdpa(*problem).output, Attend(query, key, value).output);
}

// Keys 1 and 3 are masked in each way there is; whatever they hold must not matter.
TEST(ReferenceMask, MaskedKeysNeverInfluenceNotEvenWithNan) {
  const HeadsTensor<std::uint8_t> mask(1, 4, {1, 0, 1, 0});
  const ReferenceResult kept = AttendScores({1, 2}, {3, 5});
  for (const float poison : {kNan, static_cast<float>(kInfinity), 0.0f}) {
    const ReferenceResult masked = AttendScores({1, poison, 2, poison}, {3, poison, 5, poison}, {.mask = mask.View()});
    EXPECT_EQ(masked.output, kept.output);
    EXPECT_EQ(masked.log_sum_exp, kept.log_sum_exp);
    EXPECT_EQ(masked.attention_weights[1], 0);
    EXPECT_EQ(masked.scores[3], -kInfinity);
  }
}

TEST(ReferenceMask, KeysBeyondTheValidLengthNeverInfluence) {
  const std::vector<std::int64_t> lengths = {2};
  const ReferenceResult result = AttendScores({1, 2, kNan}, {3, 5, kNan}, {.valid_lengths = lengths});
  EXPECT_EQ(result.output, AttendScores({1, 2}, {3, 5}).output);
}

TEST(ReferenceMask, NanInAVisibleKeyPropagates) {
  EXPECT_TRUE(std::isnan(AttendScores({1, kNan}, {3, 5}).output[0]));
  EXPECT_TRUE(std::isnan(AttendScores({1, 2}, {3, kNan}).output[0]));
}

TEST(ReferenceMask, FullyMaskedRowGivesZerosAndMinusInfinity) {
  const HeadsTensor<std::uint8_t> mask(1, 2, {0, 0});
  const std::vector<std::int64_t> none = {0};
  for (const AttentionOptions& options :
       {AttentionOptions{.mask = mask.View()}, AttentionOptions{.valid_lengths = none}}) {
    const ReferenceResult result = AttendScores({1, kNan}, {kNan, 5}, options);
    EXPECT_THAT(result.output, ElementsAre(0));
    EXPECT_THAT(result.attention_weights, ElementsAre(0, 0));
    EXPECT_THAT(result.averaged_weights, ElementsAre(0, 0));
    EXPECT_THAT(result.scores, ElementsAre(-kInfinity, -kInfinity));
    EXPECT_THAT(result.log_sum_exp, ElementsAre(-kInfinity));
  }
}

// A part without keys still carries the sink into a merge.
TEST(ReferenceMask, FullyMaskedRowWithASinkHasTheSinkAsLogSumExp) {
  const HeadsTensor<std::uint8_t> mask(1, 2, {0, 0});
  const std::vector<float> sinks = {2.0f};
  const ReferenceResult result = AttendScores({1, kNan}, {kNan, 5}, {.mask = mask.View(), .sinks = sinks});
  EXPECT_THAT(result.output, ElementsAre(0));
  EXPECT_THAT(result.log_sum_exp, ElementsAre(2));
}

TEST(ReferenceMask, RowWithOnlyMinusInfinityScoresCountsAsFullyMasked) {
  const HeadsTensor<float> bias(1, 1, {static_cast<float>(-kInfinity)});
  const ReferenceResult result = AttendScores({1, 2}, {3, kNan}, {.bias = bias.View()});
  EXPECT_THAT(result.output, ElementsAre(0));
  EXPECT_THAT(result.log_sum_exp, ElementsAre(-kInfinity));
}

TEST(ReferenceMask, MaskAndBiasAreRepeatedAlongAxesOfSizeOne) {
  const auto query = RandomHeads(2, 2, 3, 4, 1), key = RandomHeads(2, 2, 5, 4, 2), value = RandomHeads(2, 2, 5, 4, 3);
  HeadsTensor<std::uint8_t> row(1, 1, 1, 5, 1), full(2, 2, 3, 5, 1);
  HeadsTensor<float> column = RandomHeads(2, 1, 3, 1, 4), full_bias(2, 2, 3, 5);
  row.elements[2] = 0;
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t h = 0; h < 2; ++h) {
      for (std::int64_t t = 0; t < 3; ++t) {
        full.At(b, h, t, 2) = 0;
        for (std::int64_t j = 0; j < 5; ++j) full_bias.At(b, h, t, j) = column.At(b, 0, t, 0);
      }
    }
  }
  const auto repeated = Attend(query, key, value, {.mask = row.View(), .bias = column.View()});
  const auto written_out = Attend(query, key, value, {.mask = full.View(), .bias = full_bias.View()});
  EXPECT_EQ(repeated.output, written_out.output);
  EXPECT_EQ(repeated.scores, written_out.scores);
}

LinearView Linear(const GoldenTensor& weight, const GoldenTensor& bias) {
  return {weight.floats.data(), bias.floats.data(), weight.shape[0], weight.shape[1]};
}

EmbeddingsView Embeddings(const GoldenTensor& tensor) {
  const bool batched = tensor.shape.size() == 3;
  return {tensor.floats.data(), batched ? tensor.shape[0] : 1, tensor.shape[batched ? 1 : 0], tensor.shape.back()};
}

class ReferenceMatchesNotebook : public ::testing::TestWithParam<std::string> {};

TEST_P(ReferenceMatchesNotebook, InFloat64) {
  GoldenFile golden = ReadGoldenFile(GetParam());
  auto& tensors = golden.tensors;
  const LayerView layer{.query = Linear(tensors["query.weight"], tensors["query.bias"]),
                        .key = Linear(tensors["key.weight"], tensors["key.bias"]),
                        .value = Linear(tensors["value.weight"], tensors["value.bias"])};
  const auto problem = AttendProblem::Create({.embeddings = Embeddings(tensors["x"]), .layer = layer});
  ASSERT_TRUE(problem.ok()) << problem.status();
  const ReferenceResult result = ReferenceAttend(*problem);
  EXPECT_TRUE(AllNear(result.output, tensors["output_f64"].doubles, 1e-12));
  EXPECT_TRUE(AllNear(result.averaged_weights, tensors["attention_weights_f64"].doubles, 1e-12));
  EXPECT_TRUE(AllNear(result.output, tensors["output"].doubles, 1e-5));  // As the notebook prints it, in float32.
}

INSTANTIATE_TEST_SUITE_P(Golden, ReferenceMatchesNotebook,
                         ::testing::Values("notebook_5x64", "notebook_3x17x96", "notebook_512x64"));

// The state of a torch.nn.MultiheadAttention: in_proj stacks query, key and value.
LayerView MultiheadAttention(const GoldenFile& golden) {
  const auto& tensors = golden.tensors;
  const GoldenTensor &weight = tensors.at("in_proj_weight"), &bias = tensors.at("in_proj_bias");
  const std::int64_t dim = weight.shape[1];
  const auto part = [&](std::int64_t i) {
    return LinearView{weight.floats.data() + i * dim * dim, bias.floats.data() + i * dim, dim, dim};
  };
  const std::int64_t heads = std::stoll(golden.metadata.at("num_heads"));
  return {.query = part(0),
          .key = part(1),
          .value = part(2),
          .output = Linear(tensors.at("out_proj.weight"), tensors.at("out_proj.bias")),
          .num_heads = heads,
          .num_kv_heads = heads};
}

class ReferenceMatchesMultiheadAttention : public ::testing::TestWithParam<std::string> {};

TEST_P(ReferenceMatchesMultiheadAttention, InFloat64) {
  GoldenFile golden = ReadGoldenFile(GetParam());
  auto& tensors = golden.tensors;
  const bool self = tensors["query"].floats == tensors["key_value"].floats;
  AttendProblem::Spec spec{.embeddings = Embeddings(tensors["query"]), .layer = MultiheadAttention(golden)};
  if (!self) spec.context = Embeddings(tensors["key_value"]);
  if (golden.metadata["causal"] == "bottom_right") spec.options.causal = CausalMode::kBottomRight;
  spec.options.valid_lengths = tensors["valid_lengths"].int64s;
  const auto problem = AttendProblem::Create(spec);
  ASSERT_TRUE(problem.ok()) << problem.status();
  const ReferenceResult result = ReferenceAttend(*problem);
  EXPECT_TRUE(AllNear(result.output, tensors["output_f64"].doubles, 1e-12));
  EXPECT_TRUE(AllNear(result.attention_weights, tensors["attention_weights_f64"].doubles, 1e-12));
}

INSTANTIATE_TEST_SUITE_P(Golden, ReferenceMatchesMultiheadAttention,
                         ::testing::Values("mha_self_padding", "mha_self_causal", "mha_cross_causal_7x33"));

TEST(ReferenceAttend, WithoutLayerTheEmbeddingsAreQueryKeyAndValue) {
  const auto x = RandomHeads(2, 1, 5, 8, 1);
  const auto problem = AttendProblem::Create({.embeddings = {x.elements.data(), 2, 5, 8}});
  const ReferenceResult result = ReferenceAttend(*problem), expected = Attend(x, x, x);
  EXPECT_EQ(result.output, expected.output);
  EXPECT_EQ(result.query, std::vector<double>(x.elements.begin(), x.elements.end()));
  EXPECT_EQ(result.key, result.query);
  EXPECT_EQ(result.value, result.query);
}

// Query heads [2, 2 * 3], key and value heads 1, no output projection: the heads lie side by side.
TEST(ReferenceAttend, HeadsAreConcatenatedWithoutAnOutputProjection) {
  const std::vector<float> x = {1}, query = {1, 1}, key = {1}, value = {5, 6, 7};
  const LayerView layer{.query = {query.data(), nullptr, 2, 1},
                        .key = {key.data(), nullptr, 1, 1},
                        .value = {value.data(), nullptr, 3, 1},
                        .num_heads = 2,
                        .num_kv_heads = 1};
  const auto problem = AttendProblem::Create({.embeddings = {x.data(), 1, 1, 1}, .layer = layer});
  EXPECT_THAT(ReferenceAttend(*problem).output, ElementsAre(5, 6, 7, 5, 6, 7));
}

}  // namespace
}  // namespace attend
