// What colours, ticks and labels of a drawing stand for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "client/draw/color_scale.h"
#include "client/draw/weight_map.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

WeightMap Row(std::vector<float> cells) {
  const auto columns = static_cast<std::int64_t>(cells.size());
  return {"row", 1, columns, 1, columns, std::move(cells)};
}

std::vector<std::string> Labels(const ColorScale& scale, int wanted) {
  std::vector<std::string> labels;
  for (const Tick& tick : scale.Ticks(wanted)) labels.push_back(tick.label);
  return labels;
}

TEST(ColorScale, RangesOverWhatIsNeitherMaskedNorNan) {
  const ColorScale scale({Row({0, 0.1F, std::nanf(""), 0.5F})}, /*is_log=*/false);
  EXPECT_EQ(scale.min(), 0.1F);
  EXPECT_EQ(scale.max(), 0.5F);
  EXPECT_TRUE(scale.has_zero());
  EXPECT_TRUE(scale.has_nan());
  EXPECT_EQ(scale.Fraction(0.1F), 0);
  EXPECT_EQ(scale.Fraction(0.5F), 1);
  EXPECT_NEAR(scale.Fraction(0.3F), 0.5, 1e-6);
}

TEST(ColorScale, ZeroAndNanHaveColoursThatNoWeightHas) {
  const ColorScale scale({Row({0, 1e-30F, 1})}, /*is_log=*/false);
  const auto same = [](const Rgb& a, const Rgb& b) { return a.red == b.red && a.green == b.green && a.blue == b.blue; };
  EXPECT_TRUE(same(scale.Color(0), kZeroColor));
  EXPECT_TRUE(same(scale.Color(std::nanf("")), kNanColor));
  for (int i = 0; i <= 1000; ++i) {
    const Rgb color = ColorScale::ColorAt(static_cast<float>(i) / 1000);
    EXPECT_FALSE(same(color, kZeroColor) || same(color, kNanColor)) << i;
  }
  EXPECT_TRUE(same(scale.Color(1e-30F), ColorScale::ColorAt(0))) << "small is not masked";
}

TEST(ColorScale, WeightsThatNoServerShouldSendHaveAColourToo) {
  const float infinity = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
  for (const bool is_log : {false, true}) {
    for (const auto& row : {Row({1, infinity}), Row({-infinity, infinity}), Row({-most, most}), Row({-1, 2, 3})}) {
      const ColorScale scale({row}, is_log);
      for (const float weight : row.cells) (void)scale.Color(weight);  // A sanitizer looks.
      EXPECT_LT(scale.Ticks(5).size(), 100u);
    }
  }
}

TEST(ColorScale, ALogarithmicScaleIsLinearInTheExponent) {
  const ColorScale scale({Row({1e-4F, 1e-2F, 1})}, /*is_log=*/true);
  EXPECT_NEAR(scale.Fraction(1e-2F), 0.5, 1e-6);
  EXPECT_THAT(Labels(scale, 5), ElementsAre("0.0001", "0.001", "0.01", "0.1", "1"));
  const ColorScale wide({Row({1e-30F, 1})}, /*is_log=*/true);
  EXPECT_EQ(wide.Fraction(1e-30F), 0);
  EXPECT_NEAR(wide.Fraction(1e-3F), 0.5, 1e-6) << "what is below a millionth of the largest is drawn as that";
}

TEST(ColorScale, TicksAreRoundNumbersInTheRange) {
  EXPECT_THAT(Labels(ColorScale({Row({0.139F, 0.277F})}, false), 5), ElementsAre("0.15", "0.2", "0.25"));
  EXPECT_THAT(Labels(ColorScale({Row({0.25F, 0.25F})}, false), 5), ElementsAre("0.25")) << "no range";
  EXPECT_EQ(ColorScale({Row({0.25F, 0.25F})}, true).Fraction(0.25F), 1);
}

TEST(Labels, AreShortenedByCharactersAndNotByBytes) {
  EXPECT_EQ(Shortened("naïve", 5), "naïve");
  EXPECT_EQ(Shortened("naïveté", 5), "naïv…");
  EXPECT_EQ(Shortened("ïïïï", 2), "ï…");
  EXPECT_EQ(CountCharacters("naïve…"), 6);
}

TEST(Labels, OfSelfAttentionNameQueriesAndKeys) {
  DrawStyle style;
  style.query_labels = {"a", "b"};
  ASSERT_TRUE(FitLabels(2, 2, &style).ok());
  EXPECT_THAT(style.key_labels, ElementsAre("a", "b"));
  DrawStyle cross;
  cross.query_labels = {"a", "b"};
  EXPECT_THAT(std::string(FitLabels(2, 3, &cross).message()), HasSubstr("--key-labels"));
  cross.key_labels = {"x", "y", "z"};
  EXPECT_TRUE(FitLabels(2, 3, &cross).ok());
  EXPECT_THAT(std::string(FitLabels(3, 3, &cross).message()), HasSubstr("--labels has 2 lines"));
}

}  // namespace
}  // namespace attend::client
