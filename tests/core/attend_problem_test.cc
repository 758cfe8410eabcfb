// Guards the rules of attention over embeddings: every bound and one step beyond it, and the field that is blamed.
#include "core/layer/attend_problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/layer/compute_attend.h"

namespace attend {
namespace {

using ::testing::HasSubstr;
using Spec = AttendProblem::Spec;

// Validation looks at shapes and scalars, never at tensor elements: this is only an address.
constexpr float kFloat = 0;
constexpr std::int64_t kHuge = std::int64_t{1} << 50;

// B = 2, T = 5, S = 7, D = 8, D' = 12, H = 6, K = 3, E = 4, V = 2, D_out = 10.
Spec CrossAttention() {
  const LayerView layer = {.query = {&kFloat, &kFloat, 24, 8},
                           .key = {&kFloat, nullptr, 12, 12},
                           .value = {&kFloat, &kFloat, 6, 12},
                           .output = {&kFloat, &kFloat, 10, 12},
                           .num_heads = 6,
                           .num_kv_heads = 3};
  return {.embeddings = {&kFloat, 2, 5, 8}, .context = {&kFloat, 2, 7, 12}, .layer = layer, .options = {}};
}

struct Case {
  std::string name;
  std::function<void(Spec&)> change;
  std::string field;    // Empty: valid.
  std::string message;  // A part of the message.
};

const std::int64_t kSevens[] = {7, 0};
const std::int64_t kEights[] = {7, 8};
const std::uint8_t kBool = 0;
constexpr double kFrequencies[] = {kMaxRotaryFrequency, -kMaxRotaryFrequency};
constexpr std::int64_t kOffsets[] = {0, std::int64_t{1} << 40}, kThreeOffsets[] = {1, 2, 3};
constexpr std::int64_t kNegativeOffset[] = {0, -1}, kLargeOffset[] = {(std::int64_t{1} << 40) + 1, 0};
constexpr std::int64_t kQuerySequences[] = {0, 1, 1, 5}, kKeySequences[] = {0, 4, 6, 7};
constexpr double kNanFrequency[] = {1, NAN};
constexpr double kInfiniteFrequency[] = {-INFINITY, 1};
constexpr double kLargeFrequency[] = {1, 1.8446744073709556e19};

std::vector<Case> Cases() {
  const std::string query = "layer.query_projection.weight", key = "layer.key_projection.weight",
                    value = "layer.value_projection.weight", output = "layer.output_projection.weight";
  return {
      {"AsItIs", [](Spec&) {}, ""},
      {"NoEmbeddings", [](Spec& s) { s.embeddings = {}; }, "embeddings", "missing"},
      {"NoBatch", [](Spec& s) { s.embeddings.batch = s.context.batch = 0; }, "embeddings.shape", "at least 1"},
      {"NoTokens", [](Spec& s) { s.embeddings.length = 0; }, "embeddings.shape", "at least 1"},
      {"NoSize", [](Spec& s) { s.embeddings.dim = 0; }, "embeddings.shape", "at least 1"},
      {"NoContextTokens", [](Spec& s) { s.context.length = 0; }, "context.shape", "at least 1"},
      {"EmbeddingsOverflow", [](Spec& s) { s.embeddings.length = INT64_MAX; }, "embeddings.shape", "any machine"},
      {"ContextBatch", [](Spec& s) { s.context.batch = 1; }, "context.shape", "batch size 1"},
      {"ScoresOverflow", [](Spec& s) { s.embeddings.length = s.context.length = std::int64_t{1} << 40; },
       "embeddings.shape", "any machine"},
      {"ProjectedQueryOverflow",
       [](Spec& s) {
         s.embeddings.length = std::int64_t{1} << 40;
         s.layer->query.out_features = 6 * (std::int64_t{1} << 20);
         s.layer->key.out_features = 3 * (std::int64_t{1} << 20);
       },
       "embeddings.shape", "any machine"},
      {"OutputOverflow",
       [](Spec& s) {
         s.embeddings.length = kHuge;
         s.layer->output.out_features = 1000;
       },
       "embeddings.shape", "any machine"},
      {"NoLayerSameSize",
       [](Spec& s) {
         s.layer.reset();
         s.context.dim = 8;
       },
       ""},
      {"NoLayerOtherSize", [](Spec& s) { s.layer.reset(); }, "context.shape", "embedding size 12"},
      {"OneHead",
       [](Spec& s) {
         s.layer = LayerView{{&kFloat, nullptr, 4, 8}, {&kFloat, nullptr, 4, 12}, {&kFloat, nullptr, 2, 12}, {}, 1, 1};
       },
       ""},
      {"NoHeads", [](Spec& s) { s.layer->num_heads = 0; }, "layer.num_heads", "between 1 and 1024"},
      {"NegativeHeads", [](Spec& s) { s.layer->num_heads = -1; }, "layer.num_heads", "-1"},
      {"MostHeads",
       [](Spec& s) {
         s.layer->num_heads = s.layer->num_kv_heads = 1024;
         s.layer->query.out_features = s.layer->key.out_features = s.layer->value.out_features = 1024;
         s.layer->output.in_features = 1024;
       },
       ""},
      {"OneHeadTooMany",
       [](Spec& s) {
         s.layer->num_heads = s.layer->num_kv_heads = 1025;
         s.layer->query.out_features = s.layer->key.out_features = s.layer->value.out_features = 1025;
       },
       "layer.num_heads", "1025"},
      {"NoKeyHeads", [](Spec& s) { s.layer->num_kv_heads = 0; }, "layer.num_kv_heads", "at least 1"},
      {"KeyHeadsDoNotDivide", [](Spec& s) { s.layer->num_kv_heads = 4; }, "layer.num_kv_heads", "divide"},
      {"MoreKeyHeadsThanHeads", [](Spec& s) { s.layer->num_kv_heads = 12; }, "layer.num_kv_heads", "divide"},
      {"NoQueryWeight", [](Spec& s) { s.layer->query = {}; }, query, "missing"},
      {"NoKeyWeight", [](Spec& s) { s.layer->key = {}; }, key, "missing"},
      {"NoValueWeight", [](Spec& s) { s.layer->value = {}; }, value, "missing"},
      {"NoOutputProjection", [](Spec& s) { s.layer->output = {}; }, ""},
      {"OutputBiasAlone", [](Spec& s) { s.layer->output.weight = nullptr; }, output, "bias"},
      {"QueryIn", [](Spec& s) { s.layer->query.in_features = 9; }, query + ".shape", "size of embeddings"},
      {"KeyIn", [](Spec& s) { s.layer->key.in_features = 8; }, key + ".shape", "size of context"},
      {"ValueIn", [](Spec& s) { s.layer->value.in_features = 8; }, value + ".shape", "must be 12"},
      {"OutputIn", [](Spec& s) { s.layer->output.in_features = 6; }, output + ".shape", "must be 12"},
      {"QueryRows", [](Spec& s) { s.layer->query.out_features = 25; }, query + ".shape", "multiple of layer.num_heads"},
      {"KeyRows", [](Spec& s) { s.layer->key.out_features = 13; }, key + ".shape", "layer.num_kv_heads, which is 3"},
      {"ValueRows", [](Spec& s) { s.layer->value.out_features = 7; }, value + ".shape", "multiple"},
      {"NoValueRows", [](Spec& s) { s.layer->value.out_features = 0; }, value + ".shape", "at least 1"},
      {"NoOutputRows", [](Spec& s) { s.layer->output.out_features = 0; }, output + ".shape", "at least 1"},
      {"ValueRowsHuge",
       [](Spec& s) {
         s.layer->value.out_features = 48 * kHuge;
         s.layer->output = {};
       },
       value + ".shape"},
      {"HeadSizesDiffer", [](Spec& s) { s.layer->key.out_features = 15; }, key + ".shape", "the size 5"},
      {"LengthsOfTheContext", [](Spec& s) { s.options.valid_lengths = kSevens; }, ""},
      {"LengthBeyondTheContext", [](Spec& s) { s.options.valid_lengths = kEights; }, "options.valid_lengths[1]", "7"},
      {"MaskPerQueryHead", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 1, 6, 5, 7); }, ""},
      {"MaskPerKeyHead", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 1, 3, 5, 7); }, "options.mask.shape"},
      {"SlopePerQueryHead", [](Spec& s) { s.options.alibi_slopes = absl::MakeConstSpan(&kFloat, 6); }, ""},
      {"SlopePerKeyHead", [](Spec& s) { s.options.alibi_slopes = absl::MakeConstSpan(&kFloat, 3); },
       "options.alibi_slopes.shape"},
      {"Softcap", [](Spec& s) { s.options.softcap = 0.0f; }, "options.softcap"},
      {"NormOverAHead",
       [](Spec& s) {
         s.layer->query_norm = {&kFloat, nullptr, 4};
       },
       ""},
      {"NormOverAToken",
       [](Spec& s) {
         s.layer->query_norm = {&kFloat, &kFloat, 24};
       },
       ""},
      {"NormOverAKeyToken",
       [](Spec& s) {
         s.layer->key_norm = {&kFloat, nullptr, 12};
       },
       ""},
      {"NormOfTwoHeads",
       [](Spec& s) {
         s.layer->query_norm = {&kFloat, nullptr, 8};
       },
       "layer.query_norm.weight.shape", "must be [4], one weight for each element of a head, or [24]"},
      {"KeyNormOfAllQueryHeads",
       [](Spec& s) {
         s.layer->key_norm = {&kFloat, nullptr, 24};
       },
       "layer.key_norm.weight.shape", "is [24]"},
      {"NormOfNothing",
       [](Spec& s) {
         s.layer->key_norm = {&kFloat, nullptr, 0};
       },
       "layer.key_norm.weight.shape"},
      {"NormBiasAlone", [](Spec& s) { s.layer->key_norm.bias = &kFloat; }, "layer.key_norm.weight", "missing"},
      {"EpsilonZero",
       [](Spec& s) {
         s.layer->key_norm = {&kFloat, nullptr, 4, NormKind::kLayer, 0};
       },
       ""},
      {"EpsilonNegative",
       [](Spec& s) {
         s.layer->key_norm = {&kFloat, nullptr, 4, NormKind::kRms, -1e-9f};
       },
       "layer.key_norm.epsilon", "at least 0"},
      {"EpsilonNan",
       [](Spec& s) {
         s.layer->query_norm = {&kFloat, nullptr, 4, NormKind::kRms, NAN};
       },
       "layer.query_norm.epsilon", "nan"},
      {"EpsilonInfinite",
       [](Spec& s) {
         s.layer->query_norm = {&kFloat, nullptr, 4, NormKind::kRms, INFINITY};
       },
       "layer.query_norm.epsilon", "finite"},
      {"RotaryWholeHead", [](Spec& s) { s.layer->rotary.frequencies = kFrequencies; }, ""},
      {"RotaryBeyondTheHead",
       [](Spec& s) {
         s.layer->query.out_features = 18, s.layer->key.out_features = 9;
         s.layer->rotary.frequencies = kFrequencies;
       },
       "layer.rotary.frequencies", "has 2 entries, which rotate 4 elements; a head has 3, so there may be at most 1"},
      {"FrequencyNan", [](Spec& s) { s.layer->rotary.frequencies = kNanFrequency; }, "layer.rotary.frequencies[1]",
       "nan"},
      {"FrequencyInfinite", [](Spec& s) { s.layer->rotary.frequencies = kInfiniteFrequency; },
       "layer.rotary.frequencies[0]", "-inf"},
      {"FrequencyTooLarge", [](Spec& s) { s.layer->rotary.frequencies = kLargeFrequency; },
       "layer.rotary.frequencies[1]", "between -2^64 and 2^64"},
      {"OffsetMost", [](Spec& s) { s.position_offset = std::int64_t{1} << 40; }, ""},
      {"OffsetBeyond", [](Spec& s) { s.position_offset = (std::int64_t{1} << 40) + 1; }, "position_offset",
       "1099511627777"},
      {"OffsetNegative", [](Spec& s) { s.position_offset = -1; }, "position_offset", "is -1"},
      {"OffsetsAtBothBounds", [](Spec& s) { s.position_offsets = kOffsets; }, ""},
      {"OffsetsNone", [](Spec& s) { s.position_offsets = {}, s.position_offset = 3; }, ""},
      {"OneOffsetTooFew", [](Spec& s) { s.position_offsets = absl::MakeConstSpan(kOffsets, 1); }, "position_offsets",
       "1 entries; it must have one for each of the 2 batch entries"},
      {"OneOffsetTooMany", [](Spec& s) { s.position_offsets = kThreeOffsets; }, "position_offsets", "has 3 entries"},
      {"OneOfTheOffsetsNegative", [](Spec& s) { s.position_offsets = kNegativeOffset; }, "position_offsets[1]",
       "is -1"},
      {"OneOfTheOffsetsBeyond", [](Spec& s) { s.position_offsets = kLargeOffset; }, "position_offsets[0]",
       "is 1099511627777; it must be between 0 and 1099511627776"},
      {"OffsetAndOffsets",
       [](Spec& s) {
         s.position_offsets = kOffsets;
         s.position_offset = 1;
       },
       "position_offsets", "both given"},
      {"OffsetsOfSequences",
       [](Spec& s) {
         s.embeddings.batch = s.context.batch = 1;
         s.options.cumulative_query_lengths = kQuerySequences, s.options.cumulative_key_lengths = kKeySequences;
         s.position_offsets = kThreeOffsets;
       },
       ""},
      {"OffsetsOfFewerSequences",
       [](Spec& s) {
         s.embeddings.batch = s.context.batch = 1;
         s.options.cumulative_query_lengths = kQuerySequences, s.options.cumulative_key_lengths = kKeySequences;
         s.position_offsets = kOffsets;
       },
       "position_offsets", "one for each of the 3 sequences"},
      {"KeyMask", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 1, 1, 7); }, ""},
      {"KeyMaskOfQueries", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 1, 1, 5); },
       "options.key_mask.shape", "[2, 7]"},
  };
}

class AttendProblemRules : public ::testing::TestWithParam<Case> {};

TEST_P(AttendProblemRules, AcceptsOrBlamesTheField) {
  Spec spec = CrossAttention();
  GetParam().change(spec);
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(spec);
  if (GetParam().field.empty()) {
    EXPECT_TRUE(problem.ok()) << problem.status();
    return;
  }
  ASSERT_EQ(problem.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(problem.status()).field, GetParam().field);
  EXPECT_THAT(std::string(problem.status().message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(problem.status().message()), HasSubstr(GetParam().field));
}

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(All, AttendProblemRules, ::testing::ValuesIn(Cases()), kCaseName);

TEST(AttendProblem, CrossAttentionAxes) {
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(CrossAttention());
  ASSERT_TRUE(problem.ok()) << problem.status();
  EXPECT_FALSE(problem->self_attention());
  EXPECT_EQ(problem->batch(), 2);
  EXPECT_EQ(problem->query_length(), 5);
  EXPECT_EQ(problem->key_length(), 7);
  EXPECT_EQ(problem->num_heads(), 6);
  EXPECT_EQ(problem->num_kv_heads(), 3);
  EXPECT_EQ(problem->head_dim(), 4);
  EXPECT_EQ(problem->value_dim(), 2);
  EXPECT_EQ(problem->output_dim(), 10);
  EXPECT_TRUE(problem->options().query_lengths.empty());
}

TEST(AttendProblem, WithoutOutputProjectionHeadsAreConcatenated) {
  Spec spec = CrossAttention();
  spec.layer->output = {};
  EXPECT_EQ(AttendProblem::Create(spec)->output_dim(), 12);
}

TEST(AttendProblem, WithoutLayerThereIsOneHeadOfTheEmbeddingSize) {
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create({.embeddings = {&kFloat, 1, 5, 8}});
  ASSERT_TRUE(problem.ok()) << problem.status();
  EXPECT_TRUE(problem->self_attention());
  EXPECT_EQ(problem->num_heads(), 1);
  EXPECT_EQ(problem->num_kv_heads(), 1);
  EXPECT_EQ(problem->key_length(), 5);
  EXPECT_EQ(problem->head_dim(), 8);
  EXPECT_EQ(problem->value_dim(), 8);
  EXPECT_EQ(problem->output_dim(), 8);
}

TEST(AttendProblem, InSelfAttentionTheLengthsCountQueriesToo) {
  const std::int64_t lengths[] = {3, 0};
  const absl::StatusOr<AttendProblem> problem =
      AttendProblem::Create({.embeddings = {&kFloat, 2, 5, 8}, .options = {.valid_lengths = lengths}});
  ASSERT_TRUE(problem.ok()) << problem.status();
  EXPECT_EQ(problem->options().query_lengths, problem->options().valid_lengths);
}

TEST(AttendProblem, FlopsAndScratchCountProjectionsAndAttention) {
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(CrossAttention());
  const double projections = 2.0 * 2 * (5 * 8 * 24 + 7 * 12 * 12 + 7 * 12 * 6 + 5 * 12 * 10);
  const double attention = 2.0 * 2 * 6 * 5 * 7 * (4 + 2);
  EXPECT_EQ(problem->Flops(), projections + attention);
  EXPECT_GE(ScratchBytes(*problem, 1, false), 4.0 * 2 * (5 * 24 + 7 * 12 + 7 * 6 + 5 * 12));
}

TEST(AttendProblem, WithoutLayerOnlyAttentionIsCounted) {
  const absl::StatusOr<AttendProblem> problem =
      AttendProblem::Create({.embeddings = {&kFloat, 1, 5, 8}, .options = {.causal = CausalMode::kBottomRight}});
  EXPECT_EQ(problem->Flops(), 2.0 * 15 * 16);
  EXPECT_LT(ScratchBytes(*problem, 1, false), 1 << 16) << "no projected tensors";
}

}  // namespace
}  // namespace attend
