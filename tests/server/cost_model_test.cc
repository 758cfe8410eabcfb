// What work is expected to take, and what the expectation learns from.
#include "server/rpc/cost_model.h"

#include <gtest/gtest.h>

namespace attend::server {
namespace {

constexpr ComputeRates kRates{.flops_per_ms = 1000, .bytes_per_ms = 100};

TEST(CostModelTest, BeforeAnythingIsSeenTheMeasuredRatesCount) {
  const CostModel model(kRates);
  EXPECT_DOUBLE_EQ(model.Milliseconds({}), 0);
  EXPECT_DOUBLE_EQ(model.Milliseconds({.flops = 5000}), 5);
  EXPECT_DOUBLE_EQ(model.Milliseconds({.bytes = 300}), 3);
  EXPECT_DOUBLE_EQ(model.Milliseconds({.flops = 5000, .bytes = 300}), 8);
  EXPECT_DOUBLE_EQ(model.LeastMilliseconds({.flops = 5000, .bytes = 300}), 8);
}

TEST(CostModelTest, FollowsAMachineThatIsThreeTimesSlower) {
  CostModel model(kRates);
  for (int i = 0; i < 100; ++i) model.Observe({.flops = 50'000}, 150);
  EXPECT_NEAR(model.Milliseconds({.flops = 1000}), 3, 0.01);
  EXPECT_DOUBLE_EQ(model.LeastMilliseconds({.flops = 1000}), 1) << "it may become idle again";
  for (int i = 0; i < 400; ++i) model.Observe({.flops = 50'000}, 25);
  EXPECT_NEAR(model.Milliseconds({.flops = 1000}), 0.5, 0.01);
  EXPECT_NEAR(model.LeastMilliseconds({.flops = 1000}), 0.5, 0.01);
}

TEST(CostModelTest, TinyJobsHardlyCount) {
  CostModel model(kRates);
  for (int i = 0; i < 100; ++i) model.Observe({.flops = 1}, 0.05);  // Fifty times too long, each for its overhead.
  EXPECT_NEAR(model.correction(), 1, 0.06);
}

TEST(CostModelTest, NoSampleSaysMoreThanAFactorOf64) {
  CostModel model(kRates);
  for (int i = 0; i < 1000; ++i) model.Observe({.flops = 1e5}, 1e12);
  EXPECT_NEAR(model.correction(), 64, 1e-6);
  for (int i = 0; i < 100'000; ++i) model.Observe({.flops = 1e5}, 0);
  EXPECT_NEAR(model.correction(), 1.0 / 64, 1e-6);
  model.Observe({}, 100);  // Says nothing.
  EXPECT_NEAR(model.correction(), 1.0 / 64, 1e-6);
}

TEST(CostModelTest, EachTenantIsCorrectedByItsOwnWork) {
  TenantCostModels models(kRates);
  for (int i = 0; i < 100; ++i) models.Observe("slow", {.flops = 50'000}, 150);
  EXPECT_NEAR(models.Of("slow").Milliseconds({.flops = 1000}), 3, 0.01);
  EXPECT_DOUBLE_EQ(models.Of("other").Milliseconds({.flops = 1000}), 1);
}

TEST(CostModelTest, TheMachineHasRates) {
  const ComputeRates rates = MeasureRates(BestInstructionSet());
  EXPECT_GT(rates.flops_per_ms, 1e3);  // A million operations a second: less is a mistake, not a machine.
  EXPECT_LT(rates.flops_per_ms, 1e10);
  EXPECT_GT(rates.bytes_per_ms, 1e3);
  EXPECT_LT(rates.bytes_per_ms, 1e10);
}

TEST(CostHintTest, IsAFiniteNumberOfAtLeastZeroOrNothing) {
  EXPECT_EQ(ParseCostHint("0"), 0);
  EXPECT_EQ(ParseCostHint("1.5e9"), 1.5e9);
  EXPECT_EQ(ParseCostHint("12345678901"), 12345678901.0);
  for (const char* text : {"", "-1", "nan", "inf", "1e999", "many", "1 2", "1,5"})
    EXPECT_EQ(ParseCostHint(text), std::nullopt) << text;
}

}  // namespace
}  // namespace attend::server
