// Guards that attention over parts of the keys, merged, is attention over all of them.
#include "core/compute/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/reference/reference.h"
#include "tests/support/heads_tensor.h"
#include "tests/support/same_bits.h"

namespace attend {
namespace {

using testing::AllNear;
using ::testing::Each;
using testing::HeadsTensor;
using ::testing::IsNan;
using testing::RandomHeads;
using testing::SameBits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A partial result that owns its numbers.
struct Part {
  std::vector<float> output, log_sum_exp;
};

Part Merge(const std::vector<Part>& parts, std::size_t rows, std::size_t value_dim) {
  std::vector<PartialAttention> views;
  for (const Part& part : parts) views.push_back({part.output, part.log_sum_exp});
  Part merged{std::vector<float>(rows * value_dim, 99.0f), std::vector<float>(rows, 99.0f)};
  const absl::Status status =
      MergePartialAttention(views, {absl::MakeSpan(merged.output), absl::MakeSpan(merged.log_sum_exp)});
  EXPECT_TRUE(status.ok()) << status;
  return merged;
}

constexpr std::int64_t kBatch = 2, kHeads = 3, kQueries = 4, kKeys = 50, kValueDim = 5;
constexpr std::size_t kRows = kBatch * kHeads * kQueries;

// Parts are rounded to float32: 2^-24 of |output| <= 4 and of |log_sum_exp| <= 8, which moves weights by 8 * 2^-24.
constexpr double kSplitTolerance = 4 * 9 * 0x1p-24;

class MergeSplitKeys : public ::testing::Test {
 protected:
  // The reference over the keys [begin, end) alone, rounded to what a server would send.
  Part Attend(std::int64_t begin, std::int64_t end) {
    HeadsTensor<std::uint8_t> mask(1, 1, 1, kKeys);
    for (std::int64_t j = begin; j < end; ++j) mask.At(0, 0, 0, j) = 1;
    const ReferenceResult result = Reference({.causal = CausalMode::kBottomRight, .mask = mask.View()});
    return {{result.output.begin(), result.output.end()}, {result.log_sum_exp.begin(), result.log_sum_exp.end()}};
  }
  ReferenceResult Reference(const AttentionOptions& options) {
    const auto problem =
        SdpaProblem::Create({.query = query_.View(), .key = key_.View(), .value = value_.View(), .options = options});
    EXPECT_TRUE(problem.ok()) << problem.status();
    return ReferenceSdpa(*problem);
  }

  const HeadsTensor<float> query_ = RandomHeads(kBatch, kHeads, kQueries, 16, 1);
  const HeadsTensor<float> key_ = RandomHeads(kBatch, kHeads, kKeys, 16, 2);
  const HeadsTensor<float> value_ = RandomHeads(kBatch, kHeads, kKeys, kValueDim, 3);
};

class MergeSplitKeysAt : public MergeSplitKeys, public ::testing::WithParamInterface<std::vector<std::int64_t>> {};

TEST_P(MergeSplitKeysAt, GivesAttentionOverAllKeys) {
  std::vector<Part> parts;
  std::int64_t begin = 0;
  for (const std::int64_t end : GetParam()) {
    parts.push_back(Attend(begin, end));
    begin = end;
  }
  ASSERT_EQ(begin, kKeys);
  const ReferenceResult whole = Reference({.causal = CausalMode::kBottomRight});
  const Part merged = Merge(parts, kRows, kValueDim);
  EXPECT_TRUE(AllNear(merged.output, whole.output, kSplitTolerance));
  EXPECT_TRUE(AllNear(merged.log_sum_exp, whole.log_sum_exp, kSplitTolerance / 4));
}

// Where each part ends; the last keys are hidden from some rows by causality, so that parts of them are empty there.
INSTANTIATE_TEST_SUITE_P(Ends, MergeSplitKeysAt,
                         ::testing::Values(std::vector<std::int64_t>{50}, std::vector<std::int64_t>{25, 50},
                                           std::vector<std::int64_t>{1, 50}, std::vector<std::int64_t>{47, 48, 49, 50},
                                           std::vector<std::int64_t>{0, 10, 10, 20, 30, 50}));

const Part kPart = {{0.1f, -0.0f, 3e38f, 1e-45f}, {12.3f, -7e5f}};
const Part kEmpty = {{0, 0, 0, 0}, {-kInfinity, -kInfinity}};

TEST(Merge, EmptyPartIsTheIdentityToTheBit) {
  for (const auto& parts :
       std::vector<std::vector<Part>>{{kPart}, {kPart, kEmpty}, {kEmpty, kPart}, {kEmpty, kPart, kEmpty}}) {
    const Part merged = Merge(parts, 2, 2);
    EXPECT_TRUE(SameBits(merged.log_sum_exp, kPart.log_sum_exp));
    EXPECT_EQ(merged.output, kPart.output);
  }
}

TEST(Merge, OnlyEmptyPartsGiveZerosAndMinusInfinity) {
  for (const std::vector<Part>& parts : {std::vector<Part>{}, {kEmpty}, {kEmpty, kEmpty}}) {
    const Part merged = Merge(parts, 2, 2);
    EXPECT_THAT(merged.output, Each(0.0f));
    EXPECT_THAT(merged.log_sum_exp, Each(-kInfinity));
  }
}

TEST(Merge, RowsThatNobodySawMayBeKept) {
  std::vector<float> output = {1, 2, 3, 4}, rows = {-kInfinity, 0};
  const std::vector<float> other_output = {9, 9, 5, 6}, other_rows = {-kInfinity, 0};
  const PartialAttention parts[] = {{output, rows}, {other_output, other_rows}};
  ASSERT_TRUE(MergePartialAttention(parts, {absl::MakeSpan(output), absl::MakeSpan(rows), true}).ok());
  EXPECT_THAT(output, ::testing::ElementsAre(1, 2, 4, 5));
  EXPECT_EQ(rows[0], -kInfinity);
}

TEST(Merge, OutputOfAnEmptyPartIsNotLookedAt) {
  const Part poison = {{kNan, kInfinity, kNan, kNan}, {-kInfinity, -kInfinity}};
  EXPECT_EQ(Merge({poison, kPart}, 2, 2).output, kPart.output);
  EXPECT_THAT(Merge({poison, poison}, 2, 2).output, Each(0.0f));
}

TEST(Merge, NanPropagatesWithinItsRow) {
  const Part nan = {{1, 1, 1, 1}, {kNan, 0}};
  for (const std::vector<Part>& parts : {std::vector<Part>{nan, kEmpty}, {kEmpty, nan}}) {
    const Part merged = Merge(parts, 2, 2);
    EXPECT_THAT(merged.output[0], IsNan());
    EXPECT_THAT(merged.log_sum_exp[0], IsNan());
    EXPECT_EQ(merged.output[2], 1);
    EXPECT_EQ(merged.log_sum_exp[1], 0);
  }
}

TEST(Merge, EqualDenominatorsGiveTheMeanAndLogTwoMore) {
  const Part merged = Merge({{{2, 10}, {5}}, {{4, 30}, {5}}}, 1, 2);
  EXPECT_TRUE(AllNear(merged.output, std::vector<double>{3, 20}, 1e-6));
  EXPECT_TRUE(AllNear(merged.log_sum_exp, std::vector<double>{5 + std::log(2.0)}, 1e-6));
}

TEST(Merge, ExtremeDenominatorsDoNotOverflow) {
  for (const float huge : {1e4f, 1e30f, 3e38f}) {
    const Part merged = Merge({{{2}, {-huge}}, {{4}, {huge}}}, 1, 1);
    EXPECT_EQ(merged.output[0], 4);
    EXPECT_EQ(merged.log_sum_exp[0], huge);
    EXPECT_EQ(Merge({{{2}, {-huge}}, {{2}, {-huge}}}, 1, 1).output[0], 2);
  }
}

TEST(Merge, APartBeyondFloat32HasAllTheWeight) {
  const float beyond = std::numeric_limits<float>::infinity();
  const Part merged = Merge({{{2}, {0}}, {{5}, {beyond}}, {{3}, {-beyond}}}, 1, 1);
  EXPECT_EQ(merged.output[0], 5);
  EXPECT_EQ(merged.log_sum_exp[0], beyond);
  const Part two = Merge({{{2}, {beyond}}, {{5}, {beyond}}}, 1, 1);
  EXPECT_TRUE(std::isnan(two.output[0])) << "nobody knows their shares";
  EXPECT_TRUE(std::isnan(two.log_sum_exp[0]));
}

// The sink goes to one part, here one that sees no key at all, and counts once.
TEST_F(MergeSplitKeys, SinkInOneEmptyPartCountsOnce) {
  const std::vector<float> sinks = {0.5f, 3.0f, -1.0f};
  const HeadsTensor<std::uint8_t> nothing(1, 1, 1, 1);
  const ReferenceResult sink = Reference({.mask = nothing.View(), .sinks = sinks});
  const Part part{{sink.output.begin(), sink.output.end()}, {sink.log_sum_exp.begin(), sink.log_sum_exp.end()}};
  const ReferenceResult whole = Reference({.causal = CausalMode::kBottomRight, .sinks = sinks});
  const Part merged = Merge({part, Attend(0, 20), Attend(20, 50)}, kRows, kValueDim);
  EXPECT_TRUE(AllNear(merged.output, whole.output, kSplitTolerance));
  EXPECT_TRUE(AllNear(merged.log_sum_exp, whole.log_sum_exp, kSplitTolerance));
}

// Each key is a part of its own, whose log-sum-exp is its score and whose output is its value.
TEST(Merge, OneKeyPerPartIsSoftmax) {
  const std::vector<double> scores = {1, -2, 0.5}, values = {3, 5, -7};
  std::vector<Part> parts;
  double numerator = 0, denominator = 0;
  for (std::size_t j = 0; j < 3; ++j) {
    parts.push_back({{static_cast<float>(values[j])}, {static_cast<float>(scores[j])}});
    numerator += std::exp(scores[j]) * values[j];
    denominator += std::exp(scores[j]);
  }
  const Part merged = Merge(parts, 1, 1);
  EXPECT_TRUE(AllNear(merged.output, std::vector<double>{numerator / denominator}, 2e-7));
  EXPECT_TRUE(AllNear(merged.log_sum_exp, std::vector<double>{std::log(denominator)}, 2e-7));
}

TEST(Merge, MayWriteIntoOneOfItsParts) {
  Part a = {{2, 10}, {5}}, b = {{4, 30}, {4}};
  const Part expected = Merge({a, b}, 1, 2);
  const PartialAttention parts[] = {{a.output, a.log_sum_exp}, {b.output, b.log_sum_exp}};
  ASSERT_TRUE(MergePartialAttention(parts, {absl::MakeSpan(b.output), absl::MakeSpan(b.log_sum_exp)}).ok());
  EXPECT_TRUE(SameBits(b.output, expected.output));
  EXPECT_TRUE(SameBits(b.log_sum_exp, expected.log_sum_exp));
}

TEST(Merge, SizesThatDisagreeAreBlamedAndNothingIsWritten) {
  const struct {
    std::size_t part_output, part_rows, merged_output, merged_rows;
    std::string field;
  } cases[] = {{6, 2, 6, 2, ""},
               {5, 2, 6, 2, "parts[1].output"},
               {6, 3, 6, 2, "parts[1].log_sum_exp"},
               {7, 2, 7, 2, "merged.output"},
               {0, 2, 0, 2, "merged.output"},
               {6, 0, 6, 0, "merged.output"}};
  for (const auto& c : cases) {
    const std::vector<float> output(c.part_output), rows(c.part_rows), other_output(c.merged_output),
        other_rows(c.merged_rows);
    std::vector<float> merged_output(c.merged_output, 99.0f), merged_rows(c.merged_rows, 99.0f);
    const PartialAttention parts[] = {{other_output, other_rows}, {output, rows}};
    const absl::Status status =
        MergePartialAttention(parts, {absl::MakeSpan(merged_output), absl::MakeSpan(merged_rows)});
    EXPECT_EQ(GetErrorDetails(status).field, c.field) << status;
    EXPECT_EQ(status.ok(), c.field.empty());
    EXPECT_THAT(merged_output, Each(status.ok() ? 0.0f : 99.0f));
  }
}

}  // namespace
}  // namespace attend
