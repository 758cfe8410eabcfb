// Guards the rules of scaled dot-product attention problems: every bound and one step beyond it, the field that is
// blamed, and which keys a query may see.
#include "core/problem/sdpa_problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"

namespace attend {
namespace {

using ::testing::HasSubstr;
using Spec = SdpaProblem::Spec;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Validation looks at shapes and scalars, never at tensor elements: these are only addresses.
constexpr float kFloat = 0;
constexpr std::uint8_t kBool = 0;

constexpr std::int8_t kByte = 0;
const TypedHeadsView kInt8Key = SplitHeads(&kByte, 2, 3, 5, 8);
const HeadsView kScales = SplitHeads(&kFloat, 2, 3, 5, 1);

// B = 2, H = 6, K = 3, T = 4, S = 5, E = 8, V = 7.
Spec ValidSpec() {
  return {.query = SplitHeads(&kFloat, 2, 6, 4, 8),
          .key = SplitHeads(&kFloat, 2, 3, 5, 8),
          .value = SplitHeads(&kFloat, 2, 3, 5, 7),
          .options = {}};
}

template <typename T>
absl::Span<const T> Keep(std::vector<T> values) {
  // Spans must outlive the table. NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
  static std::vector<std::vector<T>>* kept = new std::vector<std::vector<T>>();
  kept->push_back(std::move(values));
  return kept->back();
}

struct Case {
  std::string name;
  std::function<void(Spec&)> change;
  std::string field;    // Empty: valid.
  std::string message;  // A part of the message.
};

std::vector<Case> ShapeCases() {
  return {
      {"AsItIs", [](Spec&) {}, ""},
      {"NoQuery", [](Spec& s) { s.query = {}; }, "query", "missing"},
      {"NoKey", [](Spec& s) { s.key = {}; }, "key", "missing"},
      {"NoValue", [](Spec& s) { s.value = {}; }, "value", "missing"},
      {"EveryAxisOne",
       [](Spec& s) {
         s = {SplitHeads(&kFloat, 1, 1, 1, 1), SplitHeads(&kFloat, 1, 1, 1, 1), SplitHeads(&kFloat, 1, 1, 1, 1), {}};
       },
       ""},
      {"NoBatch", [](Spec& s) { s.query.batch = s.key.batch = s.value.batch = 0; }, "query.shape", "at least 1"},
      {"NoQueryHeads", [](Spec& s) { s.query.heads = 0; }, "query.shape", "at least 1"},
      {"NoQueries", [](Spec& s) { s.query.length = 0; }, "query.shape", "at least 1"},
      {"NoHeadSize", [](Spec& s) { s.query.dim = s.key.dim = 0; }, "query.shape", "at least 1"},
      {"NoKeyHeads", [](Spec& s) { s.key.heads = s.value.heads = 0; }, "key.shape", "at least 1"},
      {"NoKeys", [](Spec& s) { s.key.length = s.value.length = 0; }, "key.shape", "at least 1"},
      {"NoValueSize", [](Spec& s) { s.value.dim = 0; }, "value.shape", "at least 1"},
      {"NegativeLength", [](Spec& s) { s.query.length = -1; }, "query.shape", "-1"},
      {"Int8KeyWithScales", [](Spec& s) { s.key = kInt8Key, s.key_scales = kScales; }, ""},
      {"Int8KeyAndValue",
       [](Spec& s) {
         s.key = kInt8Key, s.value.type = DataType::kInt8;
         s.key_scales = s.value_scales = kScales;
       },
       ""},
      {"Int8KeyWithoutScales", [](Spec& s) { s.key = kInt8Key; }, "key_scales", "missing"},
      {"Int8ValueWithoutScales", [](Spec& s) { s.value.type = DataType::kInt8; }, "value_scales", "missing"},
      {"ScalesOfAFloatKey", [](Spec& s) { s.key_scales = kScales; }, "key_scales", "FLOAT32"},
      {"ScalesOfAnotherBatch", [](Spec& s) { s.key = kInt8Key, s.key_scales = SplitHeads(&kFloat, 1, 3, 5, 1); },
       "key_scales", "[1, 3, 5, 1]; it must be [2, 3, 5, 1]"},
      {"ScalesForQueryHeads", [](Spec& s) { s.key = kInt8Key, s.key_scales = SplitHeads(&kFloat, 2, 6, 5, 1); },
       "key_scales", "[2, 6, 5, 1]"},
      {"ScalesForFewerKeys", [](Spec& s) { s.key = kInt8Key, s.key_scales = SplitHeads(&kFloat, 2, 3, 4, 1); },
       "key_scales", "[2, 3, 4, 1]"},
      {"ScalesForEachNumber", [](Spec& s) { s.key = kInt8Key, s.key_scales = SplitHeads(&kFloat, 2, 3, 5, 8); },
       "key_scales", "[2, 3, 5, 8]"},
      {"Int8Query", [](Spec& s) { s.query.type = DataType::kInt8; }, "query.data_type", "INT8"},
      {"Int8KeyBesideFloat64",
       [](Spec& s) { s.key = kInt8Key, s.key_scales = kScales, s.query.type = s.value.type = DataType::kFloat64; },
       "key.data_type", "FLOAT64 does not mix"},
      {"KeyBatchDiffers", [](Spec& s) { s.key.batch = 1; }, "key.shape", "batch size 1"},
      {"ValueBatchDiffers", [](Spec& s) { s.value.batch = 3; }, "value.shape", "batch size 3"},
      {"HeadSizeDiffers", [](Spec& s) { s.key.dim = 9; }, "key.shape", "head size 9"},
      {"ValueHeadsDiffer", [](Spec& s) { s.value.heads = 6; }, "value.shape", "number of heads 6"},
      {"ValueTokensDiffer", [](Spec& s) { s.value.length = 6; }, "value.shape", "number of tokens 6"},
      {"HeadsNotAMultiple", [](Spec& s) { s.key.heads = s.value.heads = 4; }, "key.shape", "divide"},
      {"MoreKeyHeadsThanQueryHeads", [](Spec& s) { s.key.heads = s.value.heads = 12; }, "key.shape", "divide"},
      {"OneKeyHead", [](Spec& s) { s.key.heads = s.value.heads = 1; }, ""},
      {"ElementsOverflow", [](Spec& s) { s.query.length = kMax; }, "query.shape", "any machine"},
      {"ElementsOverflowToZero", [](Spec& s) { s.query.batch = s.key.batch = s.value.batch = std::int64_t{1} << 62; },
       "query.shape", "any machine"},
      {"ScoresOverflow", [](Spec& s) { s.query.length = s.key.length = s.value.length = std::int64_t{1} << 40; },
       "query.shape", "scores"},
      {"OutputsOverflow", [](Spec& s) { s.query.length = s.value.dim = std::int64_t{1} << 40; }, "query.shape",
       "outputs"},
      {"QueryRowsNotDense", [](Spec& s) { s.query.dim_stride = 2; }, "query", "dense"},
      {"ValueRowsRepeated", [](Spec& s) { s.value.dim_stride = 0; }, "value", "dense"},
  };
}

std::vector<Case> OptionCases() {
  return {
      {"ScaleZero", [](Spec& s) { s.options.scale = 0.0f; }, ""},
      {"ScaleNegative", [](Spec& s) { s.options.scale = -3.0f; }, ""},
      {"ScaleInfinite", [](Spec& s) { s.options.scale = -kInfinity; }, "options.scale", "finite"},
      {"ScaleNan", [](Spec& s) { s.options.scale = kNan; }, "options.scale", "finite"},
      {"SoftcapTiny", [](Spec& s) { s.options.softcap = std::numeric_limits<float>::denorm_min(); }, ""},
      {"SoftcapZero", [](Spec& s) { s.options.softcap = 0.0f; }, "options.softcap", "positive"},
      {"SoftcapNegative", [](Spec& s) { s.options.softcap = -1.0f; }, "options.softcap", "-1"},
      {"SoftcapInfinite", [](Spec& s) { s.options.softcap = kInfinity; }, "options.softcap", "finite"},
      {"SoftcapNan", [](Spec& s) { s.options.softcap = kNan; }, "options.softcap", "finite"},
      {"WindowsZero", [](Spec& s) { s.options.sliding_window_left = s.options.sliding_window_right = 0; }, ""},
      {"WindowsHuge", [](Spec& s) { s.options.sliding_window_left = s.options.sliding_window_right = kMax; }, ""},
      {"WindowLeftNegative", [](Spec& s) { s.options.sliding_window_left = -1; }, "options.sliding_window_left"},
      {"WindowRightNegative", [](Spec& s) { s.options.sliding_window_right = -1; }, "options.sliding_window_right"},
      {"LengthsAtBothBounds",
       [](Spec& s) {
         s.options.valid_lengths = Keep<std::int64_t>({0, 5});
       },
       ""},
      {"LengthTooLarge",
       [](Spec& s) {
         s.options.valid_lengths = Keep<std::int64_t>({5, 6});
       },
       "options.valid_lengths[1]", "between 0 and 5"},
      {"LengthNegative",
       [](Spec& s) {
         s.options.valid_lengths = Keep<std::int64_t>({-1, 5});
       },
       "options.valid_lengths[0]", "-1"},
      {"OneLengthTooFew", [](Spec& s) { s.options.valid_lengths = Keep<std::int64_t>({5}); }, "options.valid_lengths",
       "2 batch entries"},
      {"OneLengthTooMany",
       [](Spec& s) {
         s.options.valid_lengths = Keep<std::int64_t>({5, 5, 5});
       },
       "options.valid_lengths", "has 3 entries"},
      {"QueryLengthAtBound",
       [](Spec& s) {
         s.options.query_lengths = Keep<std::int64_t>({0, 4});
       },
       ""},
      {"QueryLengthTooLarge",
       [](Spec& s) {
         s.options.query_lengths = Keep<std::int64_t>({5, 4});
       },
       "options.query_lengths[0]"},
      {"FullMask", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 2, 6, 4, 5); }, ""},
      {"MaskRepeatedOnEveryAxis", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 1, 1, 1, 1); }, ""},
      {"MaskBatch", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 3, 1, 4, 5); }, "options.mask.shape",
       "[2, 6, 4, 5]"},
      {"MaskKeyHeads", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 2, 3, 4, 5); }, "options.mask.shape",
       "[2, 3, 4, 5]"},
      {"MaskQueries", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 1, 1, 5, 5); }, "options.mask.shape"},
      {"MaskKeys", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 1, 1, 4, 4); }, "options.mask.shape"},
      {"MaskNoKeys", [](Spec& s) { s.options.mask = SplitHeads(&kBool, 1, 1, 4, 0); }, "options.mask.shape"},
      {"MaskNotDense",
       [](Spec& s) {
         s.options.mask = SplitHeads(&kBool, 1, 1, 4, 5);
         s.options.mask.dim_stride = 2;
       },
       "options.mask", "dense"},
      {"FullKeyMask", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 1, 1, 5); }, ""},
      {"KeyMaskForEveryBatchEntry", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 1, 1, 1, 5); }, ""},
      {"KeyMaskRepeatedOnBothAxes", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 1, 1, 1, 1); }, ""},
      {"KeyMaskBatch", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 3, 1, 1, 5); }, "options.key_mask.shape",
       "is [3, 5]; it must be [2, 5]"},
      {"KeyMaskOneKeyTooFew", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 1, 1, 4); },
       "options.key_mask.shape", "[2, 4]"},
      {"KeyMaskOneKeyTooMany", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 1, 1, 1, 6); },
       "options.key_mask.shape", "[1, 6]"},
      {"KeyMaskNoKeys", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 1, 1, 0); }, "options.key_mask.shape"},
      {"KeyMaskPerHead", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 6, 1, 5); }, "options.key_mask.shape",
       "[2, 6, 1, 5]"},
      {"KeyMaskPerQuery", [](Spec& s) { s.options.key_mask = SplitHeads(&kBool, 2, 1, 4, 5); },
       "options.key_mask.shape", "[2, 1, 4, 5]"},
      {"KeyMaskNotDense",
       [](Spec& s) {
         s.options.key_mask = SplitHeads(&kBool, 2, 1, 1, 5);
         s.options.key_mask.dim_stride = 2;
       },
       "options.key_mask", "dense"},
      {"FullBias", [](Spec& s) { s.options.bias = SplitHeads(&kFloat, 2, 6, 4, 5); }, ""},
      {"BiasPerHead", [](Spec& s) { s.options.bias = SplitHeads(&kFloat, 1, 6, 1, 5); }, ""},
      {"BiasKeys", [](Spec& s) { s.options.bias = SplitHeads(&kFloat, 1, 6, 4, 6); }, "options.bias.shape", "6]"},
      {"SlopePerHead", [](Spec& s) { s.options.alibi_slopes = Keep(std::vector<float>(6, kNan)); }, ""},
      {"SlopePerKeyHead", [](Spec& s) { s.options.alibi_slopes = Keep(std::vector<float>(3)); },
       "options.alibi_slopes.shape", "[6]"},
      {"SinkPerHead", [](Spec& s) { s.options.sinks = Keep(std::vector<float>(6, -kInfinity)); }, ""},
      {"OneSinkTooMany", [](Spec& s) { s.options.sinks = Keep(std::vector<float>(7)); }, "options.sinks.shape", "[7]"},
  };
}

class SdpaProblemRules : public ::testing::TestWithParam<Case> {};

TEST_P(SdpaProblemRules, AcceptsOrBlamesTheField) {
  Spec spec = ValidSpec();
  GetParam().change(spec);
  const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(spec);
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
INSTANTIATE_TEST_SUITE_P(Shapes, SdpaProblemRules, ::testing::ValuesIn(ShapeCases()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Options, SdpaProblemRules, ::testing::ValuesIn(OptionCases()), kCaseName);

SdpaProblem Create(const Spec& spec) {
  const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(spec);
  EXPECT_TRUE(problem.ok()) << problem.status();
  return *problem;
}

TEST(SdpaProblem, AxesAreThoseOfTheViews) {
  const SdpaProblem problem = Create(ValidSpec());
  EXPECT_EQ(problem.batch(), 2);
  EXPECT_EQ(problem.num_heads(), 6);
  EXPECT_EQ(problem.num_kv_heads(), 3);
  EXPECT_EQ(problem.group_size(), 2);
  EXPECT_EQ(problem.query_length(), 4);
  EXPECT_EQ(problem.key_length(), 5);
  EXPECT_EQ(problem.head_dim(), 8);
  EXPECT_EQ(problem.value_dim(), 7);
}

TEST(SdpaProblem, DefaultScaleIsTheInverseRootOfTheHeadSize) {
  Spec spec = ValidSpec();
  EXPECT_EQ(Create(spec).scale(), static_cast<float>(1 / std::sqrt(8.0)));
  spec.options.scale = 0.25f;
  EXPECT_EQ(Create(spec).scale(), 0.25f);
}

TEST(SdpaProblem, AxesOfSizeOneAreRepeatedWithStrideZero) {
  Spec spec = ValidSpec();
  spec.options.mask = SplitHeads(&kBool, 1, 6, 1, 5);
  const MaskView mask = Create(spec).options().mask;
  EXPECT_EQ(mask.batch, 2);
  EXPECT_EQ(mask.batch_stride, 0);
  EXPECT_EQ(mask.heads, 6);
  EXPECT_EQ(mask.head_stride, 5);
  EXPECT_EQ(mask.length, 4);
  EXPECT_EQ(mask.row_stride, 0);
  EXPECT_EQ(mask.dim, 5);
  EXPECT_EQ(mask.dim_stride, 1);
}

// Every tensor that a problem views is at its new address, and nothing else has changed.
TEST(SdpaProblem, RebindFollowsEveryTensor) {
  static constexpr float kNewFloats[8] = {};
  static constexpr std::uint8_t kNewBools[2] = {};
  const auto at = [](const float* floats, const std::uint8_t* bools) {
    Spec spec = ValidSpec();
    spec.query.data = reinterpret_cast<const std::byte*>(floats);
    spec.key.data = reinterpret_cast<const std::byte*>(floats + 1);
    spec.value.data = reinterpret_cast<const std::byte*>(floats + 2);
    spec.options.mask = SplitHeads(bools, 1, 6, 1, 5);
    spec.options.key_mask = SplitHeads(bools + 1, 1, 1, 1, 5);
    spec.options.bias = SplitHeads(floats + 3, 2, 1, 4, 5);
    spec.options.alibi_slopes = absl::MakeConstSpan(floats, 6);
    spec.options.sinks = absl::MakeConstSpan(floats + 1, 6);
    return spec;
  };
  static constexpr float kOldFloats[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  static constexpr std::uint8_t kOldBools[2] = {};
  SdpaProblem problem = Create(at(kOldFloats, kOldBools));
  problem.Rebind(at(kNewFloats, kNewBools));
  const AttentionOptions& options = problem.options();
  EXPECT_EQ(static_cast<const void*>(problem.query().data), kNewFloats);
  EXPECT_EQ(static_cast<const void*>(problem.key().data), kNewFloats + 1);
  EXPECT_EQ(static_cast<const void*>(problem.value().data), kNewFloats + 2);
  EXPECT_EQ(options.mask.data, kNewBools);
  EXPECT_EQ(options.key_mask.data, kNewBools + 1);
  EXPECT_EQ(static_cast<const void*>(options.bias.data), kNewFloats + 3);
  EXPECT_EQ(options.alibi_slopes[5], 0);
  EXPECT_EQ(options.sinks[5], 0);
  EXPECT_EQ(options.mask.batch, 2);
  EXPECT_EQ(options.key_mask.batch_stride, 0);
}

// One head, one batch entry, E = V = 1.
Spec Line(std::int64_t queries, std::int64_t keys, const AttentionOptions& options) {
  return {SplitHeads(&kFloat, 1, 1, queries, 1), SplitHeads(&kFloat, 1, 1, keys, 1), SplitHeads(&kFloat, 1, 1, keys, 1),
          options};
}

// The documented example of the window: with T = S = 5 and left = 2, query 4 sees keys 2, 3 and 4.
TEST(SdpaProblem, DocumentedWindowExampleHolds) {
  const SdpaProblem problem = Create(Line(5, 5, {.causal = CausalMode::kBottomRight, .sliding_window_left = 2}));
  EXPECT_EQ(problem.VisibleKeys(0, 4).begin, 2);
  EXPECT_EQ(problem.VisibleKeys(0, 4).end, 5);
}

TEST(SdpaProblem, HugeWindowsSeeEverythingAndDoNotOverflow) {
  for (const std::int64_t window : {kMax, kMax - 1, kMax / 2}) {
    const SdpaProblem problem = Create(Line(9, 4, {.sliding_window_left = window, .sliding_window_right = window}));
    for (std::int64_t t = 0; t < 9; ++t) {  // Positions run from -5 to 3.
      EXPECT_EQ(problem.VisibleKeys(0, t).begin, 0);
      EXPECT_EQ(problem.VisibleKeys(0, t).end, 4);
    }
    EXPECT_EQ(problem.Flops(), 4 * 9 * 4);
  }
}

TEST(SdpaProblem, LengthsMoveThePosition) {
  const std::vector<std::int64_t> keys = {3}, queries = {2};
  AttentionOptions options{.causal = CausalMode::kBottomRight, .valid_lengths = keys};
  EXPECT_EQ(Create(Line(4, 5, options)).PositionOffset(0), -1);
  options.query_lengths = queries;
  EXPECT_EQ(Create(Line(4, 5, options)).PositionOffset(0), 1);
  EXPECT_EQ(Create(Line(4, 5, options)).ValidKeys(0), 3);
  options.causal = CausalMode::kTopLeft;
  EXPECT_EQ(Create(Line(4, 5, options)).PositionOffset(0), 0);
}

// The definition, key by key, with no cleverness.
bool IsVisible(const AttentionOptions& options, std::int64_t queries, std::int64_t keys, std::int64_t t,
               std::int64_t j) {
  const std::int64_t valid_keys = options.valid_lengths.empty() ? keys : options.valid_lengths[0];
  const std::int64_t valid_queries = options.query_lengths.empty() ? queries : options.query_lengths[0];
  const std::int64_t p = options.causal == CausalMode::kTopLeft ? t : t + valid_keys - valid_queries;
  if (j >= valid_keys) return false;
  if (options.causal.value_or(CausalMode::kNone) != CausalMode::kNone && j > p) return false;
  if (options.sliding_window_left && j < p - *options.sliding_window_left) return false;
  if (options.sliding_window_right && j > p + *options.sliding_window_right) return false;
  return true;
}

void ExpectDefinition(const AttentionOptions& options, std::int64_t queries, std::int64_t keys) {
  const SdpaProblem problem = Create(Line(queries, keys, options));
  double pairs = 0;
  for (std::int64_t t = 0; t < queries; ++t) {
    const KeyRange range = problem.VisibleKeys(0, t);
    ASSERT_LE(0, range.begin);
    ASSERT_LE(range.begin, range.end);
    ASSERT_LE(range.end, problem.ValidKeys(0));
    for (std::int64_t j = 0; j < keys; ++j) {
      const bool visible = IsVisible(options, queries, keys, t, j);
      ASSERT_EQ(range.begin <= j && j < range.end, visible)
          << "T " << queries << " S " << keys << " t " << t << " j " << j;
      pairs += visible;
    }
  }
  EXPECT_EQ(problem.Flops(), 4 * pairs);
}

TEST(SdpaProblem, VisibleKeysAndFlopsFollowTheDefinitionForAllSmallProblems) {
  const std::optional<std::int64_t> windows[] = {std::nullopt, 0, 1, 3, 9};
  for (const CausalMode causal : {CausalMode::kNone, CausalMode::kBottomRight, CausalMode::kTopLeft}) {
    for (const auto left : windows) {
      for (const auto right : windows) {
        for (std::int64_t queries = 1; queries <= 5; ++queries) {
          for (std::int64_t keys = 1; keys <= 5; ++keys) {
            AttentionOptions options{.causal = causal, .sliding_window_left = left, .sliding_window_right = right};
            ASSERT_NO_FATAL_FAILURE(ExpectDefinition(options, queries, keys));
            for (std::int64_t valid = 0; valid <= keys; ++valid) {
              const std::vector<std::int64_t> valid_lengths = {valid}, query_lengths = {std::min(valid, queries)};
              options.valid_lengths = valid_lengths;
              options.query_lengths = {};
              ASSERT_NO_FATAL_FAILURE(ExpectDefinition(options, queries, keys));
              options.query_lengths = query_lengths;
              ASSERT_NO_FATAL_FAILURE(ExpectDefinition(options, queries, keys));
            }
          }
        }
      }
    }
  }
}

TEST(SdpaProblem, FlopsCountHeadsBatchAndBothSizes) {
  EXPECT_EQ(Create(ValidSpec()).Flops(), 2.0 * (8 + 7) * 2 * 6 * 4 * 5);
  Spec spec = ValidSpec();
  spec.options.valid_lengths = Keep<std::int64_t>({0, 3});
  EXPECT_EQ(Create(spec).Flops(), 2.0 * (8 + 7) * 6 * 4 * 3);
}

}  // namespace
}  // namespace attend
