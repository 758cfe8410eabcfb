// Guards what attend-verify judges by: whatever it holds wrong must be found, and nothing that is right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/compute/merge.h"
#include "tests/verify/comparison.h"
#include "tests/verify/merge_reference.h"
#include "tests/verify/top_weights_check.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor Indices(std::vector<std::int64_t> shape, const std::vector<std::int32_t>& values) {
  std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(std::int32_t));
  return Tensor::Create(ElementType::kInt32, std::move(shape), std::move(bytes)).value();
}

Tensor Halves(const std::vector<float>& values) {
  return Tensor::FromFloats({static_cast<std::int64_t>(values.size())}, values).ToFloat(ElementType::kFloat16);
}

TEST(Compare, ReportsTheErrorThatIsLargestByItsBound) {
  const double unit = std::ldexp(1, -10);  // Of float16, in [1, 2); at 1000 it is 0.5.
  const Comparison far = Compare("output", "x", Halves({1, 1000}), {1 + 2 * unit, 1000.4}, 0);
  EXPECT_THAT(far.index, ElementsAre(0));
  EXPECT_FALSE(far.ok());
  EXPECT_TRUE(Compare("output", "x", Halves({1, 1000}), {1 + unit, 1000.5}, 0).ok());
}

TEST(Compare, SixteenBitsMayOverflowWhereTheyMust) {
  EXPECT_TRUE(Compare("output", "x", Halves({1e6f, -1e6f}), {70000, -70000}, 0).ok());
  EXPECT_FALSE(Compare("output", "x", Halves({1e6f}), {60000}, 0).ok());
  EXPECT_FALSE(Compare("output", "x", Halves({1e6f}), {-70000}, 0).ok());
  EXPECT_FALSE(Compare("output", "x", Tensor::FromFloats({1}, {HUGE_VALF}), {70000}, 0).ok()) << "float32 has 70000";
}

TEST(TopWeights, AreHeldToTheSortedReference) {
  const std::vector<double> reference = {0.1, 0.6, 0.3, 0.0, 0.5, 0.5};  // [2, 3]
  const Tensor right = Tensor::FromFloats({2, 2}, {0.6f, 0.3f, 0.5f, 0.5f});
  EXPECT_TRUE(CompareTopWeights("x", right, reference, 1e-6).ok());
  const Tensor wrong = Tensor::FromFloats({2, 2}, {0.6f, 0.3f, 0.5f, 0.0f});
  EXPECT_THAT(CompareTopWeights("x", wrong, reference, 1e-6).index, ElementsAre(1, 1));
  const Tensor longer = Tensor::FromFloats({2, 4}, {0.6f, 0.3f, 0.1f, 0, 0.5f, 0.5f, 0, 0});
  EXPECT_TRUE(CompareTopWeights("x", longer, reference, 1e-6).ok()) << "behind the last weight is 0";
}

TEST(TopIndices, MayComeInEitherOrderWhereWeightsAreNearlyEqual) {
  const std::vector<double> reference = {0.4, 0.4 + 1e-8, 0.2, 0.0};
  for (const auto& keys : {std::vector<std::int32_t>{0, 1, 2, -1}, std::vector<std::int32_t>{1, 0, 2, -1}}) {
    EXPECT_TRUE(CompareTopIndices("x", Indices({1, 4}, keys), reference, 1e-6).ok());
  }
}

TEST(TopIndices, WrongOnesAreFound) {
  const std::vector<double> reference = {0.4, 0.4, 0.2, 0.0};
  const std::vector<std::int32_t> cases[] = {{0, 2}, {2, 0}, {0, 0}, {0, 4}, {0, -2}, {0, -1}, {0, 3}};
  for (const std::vector<std::int32_t>& keys : cases) {
    EXPECT_FALSE(CompareTopIndices("x", Indices({1, 2}, keys), reference, 1e-6).ok()) << keys[0] << ", " << keys[1];
  }
}

TEST(MergeReference, AgreesWithTheCoreAlsoWhereNothingIsSeen) {
  const float none = -std::numeric_limits<float>::infinity(), nan = std::nanf("");
  // [P = 2, T = 4, V = 2]
  const std::vector<float> outputs = {1, 2, 3, 4, nan, nan, 5, 6, -1, -2, nan, 7, nan, nan, 0, 1};
  const std::vector<float> log_sum_exps = {0.5f, 1, none, nan, 2, none, none, 3};
  std::vector<float> own = {3, 3, 4, 4, nan, nan, 1, 1}, own_log_sum_exp = {1, -2, none, 0};
  ReferenceResult result;
  result.output.assign(own.begin(), own.end());
  result.log_sum_exp.assign(own_log_sum_exp.begin(), own_log_sum_exp.end());
  v1::PartialAttention partials;
  ASSERT_TRUE(Tensor::FromFloats({2, 4, 2}, outputs).MoveTo(partials.mutable_output()).ok());
  ASSERT_TRUE(Tensor::FromFloats({2, 4}, log_sum_exps).MoveTo(partials.mutable_log_sum_exp()).ok());
  MergeReference(partials, &result);
  const absl::Span<const float> all(outputs), logs(log_sum_exps);
  const std::vector<PartialAttention> parts = {
      {own, own_log_sum_exp}, {all.subspan(0, 8), logs.subspan(0, 4)}, {all.subspan(8), logs.subspan(4)}};
  const MergedAttention merged{absl::MakeSpan(own), absl::MakeSpan(own_log_sum_exp)};
  ASSERT_TRUE(MergePartialAttention(parts, merged).ok());
  EXPECT_TRUE(Compare("output", "core", Tensor::FromFloats({4, 2}, own), result.output, 1e-6).ok());
  EXPECT_TRUE(Compare("log_sum_exp", "core", Tensor::FromFloats({4}, own_log_sum_exp), result.log_sum_exp, 1e-6).ok());
  EXPECT_THAT(std::vector<double>(result.output.begin() + 4, result.output.begin() + 6), ElementsAre(0, 0));
  EXPECT_EQ(result.log_sum_exp[2], -kInfinity);
}

}  // namespace
}  // namespace attend::client
