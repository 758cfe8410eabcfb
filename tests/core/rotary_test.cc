// Sines and cosines of rotary embeddings: against integers of 600 bits where angles are hard, long double where they
// are not.
#include "core/layer/rotary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

// What rotary.h promises.
constexpr double kTolerance = 4e-16;

struct Case {
  std::int64_t position;
  double frequency;
  double sine, cosine;  // Of the exact product, by Taylor's series in integers of 600 bits (Python).
};

// Positions that nearly make quarter turns (numerators of the convergents of pi / 2), frequencies that do, and both
// ends of what is allowed.
constexpr Case kHard[] = {
    {344, 0x1.0000000000000p+0, -0.9999903395061709, -0.004395553927897717},
    {355, 0x1.0000000000000p+0, -3.014435335948845e-05, -0.999999999545659},
    {51819, 0x1.0000000000000p+0, 0.999999999696513, 2.463684456932975e-05},
    {52174, 0x1.0000000000000p+0, -0.9999999999848337, 5.507508792203807e-06},
    {260515, 0x1.0000000000000p+0, 0.9999999999966023, 2.606809402892519e-06},
    {573204, 0x1.0000000000000p+0, 0.9999999999999568, -2.938899864407033e-07},
    {4846147, 0x1.0000000000000p+0, 0.9999999999999674, 2.5568951136980813e-07},
    {5419351, 0x1.0000000000000p+0, -3.8200475070896605e-08, -0.9999999999999992},
    {37362253, 0x1.0000000000000p+0, 0.9999999999999997, 2.6486660944431256e-08},
    {42781604, 0x1.0000000000000p+0, -0.9999999999999999, 1.1713814126465351e-08},
    {122925461, 0x1.0000000000000p+0, -1.0, -3.0590326915005583e-09},
    {411557987, 0x1.0000000000000p+0, 2.5367160519636766e-09, 1.0},
    {534483448, 0x1.0000000000000p+0, -1.0, -5.223166395368817e-10},
    {2549491779, 0x1.0000000000000p+0, 4.474494938161497e-10, 1.0},
    {3083975227, 0x1.0000000000000p+0, -1.0, -7.486714572073199e-11},
    {17969367914, 0x1.0000000000000p+0, -1.0, 7.311376521248978e-11},
    {21053343141, 0x1.0000000000000p+0, 1.7533805082422143e-12, -1.0},
    {881156436695, 0x1.0000000000000p+0, 1.0, -1.2251643745589862e-12},
    {902209779836, 0x1.0000000000000p+0, -1.0, -5.28216133683228e-13},
    {1, 0x1.921fb54442d18p+0, 1.0, 6.123233995736766e-17},
    {3, 0x1.921fb54442d18p+0, -1.0, -1.8369701987210297e-16},
    {-1, 0x1.921fb54442d18p+0, -1.0, 6.123233995736766e-17},
    {1099511627776, 0x1.921fb54442d18p+0, -6.732566972819702e-05, 0.9999999977336271},
    {1, 0x1.921fb54442d18p-1, 0.7071067811865475, 0.7071067811865476},
    {1099511627776, 0x1.921fb54442d18p-1, -3.366283488317165e-05, 0.9999999994334068},
    {1099511627775, 0x1.921fb54442d18p-1, -0.7071305840047254, 0.7070829775670858},
    {-1099511627776, 0x1.921fb54442d18p-1, 3.366283488317165e-05, 0.9999999994334068},
    {1099511627776, 0x1.bb5fad00ab22cp-1, 0.9941774202239604, -0.10775554332298141},
    {1099511627776, 0x1.62b2f0cd55b56p-4, 0.989318801188849, 0.14576799928056453},
    {1099511627776, 0x1.e459c57e28a47p-14, -0.2533689325918837, 0.9673697245610127},
    {1099511627775, 0x1.bb5fad00ab22cp-1, 0.7262129851132634, 0.687469781337975},
    {1099511627775, 0x1.62b2f0cd55b56p-4, 0.9730044783798192, 0.23078623237276505},
    {1099511627775, 0x1.e459c57e28a47p-14, -0.25348064101531664, 0.9673404595231526},
    {12345678901, 0x1.bb5fad00ab22cp-1, 0.11904324705685601, -0.9928890700023645},
    {12345678901, 0x1.62b2f0cd55b56p-4, 0.999928806291309, 0.011932407503851997},
    {12345678901, 0x1.e459c57e28a47p-14, 0.9041680547493608, -0.4271769291180844},
    {1099511627776, 0x1.8000000000000p+1, -0.9500044433762096, -0.31223638091269595},
    {1099511627775, 0x1.0000000000000p+64, -0.940062157518935, 0.34100313781671443},
    {7, 0x1.0000000000000p+64, 0.16445444982616528, -0.9863846784760869},
    {1099511627776, 0x1.fffffffffffffp+63, 0.7554193044509905, 0.6552416916396435},
    {1099511627776, 0x1.c25c268497682p-44, 0.10972975865126766, 0.9939614580386579},
    {1, 0x1.56e1fc2f8f359p-997, 0.0, 1.0},
    {1099511627776, 0x0.0000000000001p-1022, 0.0, 1.0},
    {1099511627775, -0x1.999999999999ap-4, 0.9983057589195474, -0.05818600955613375},
    {-5, 0x1.999999999999ap-4, -0.479425538604203, 0.8775825618903726},
    {1100585369600, 0x1.86a0000000000p+16, 0.07425348724902507, -0.9972393993577264},
};

TEST(RotaryAngles, HardCases) {
  for (const Case& c : kHard) {
    const SineAndCosine actual = RotaryAngles({&c.frequency, 1}).At(c.position, 0);
    EXPECT_NEAR(actual.sine, c.sine, kTolerance) << c.position << " * " << c.frequency;
    EXPECT_NEAR(actual.cosine, c.cosine, kTolerance) << c.position << " * " << c.frequency;
  }
}

// The product has 11 + 53 bits, so it is exact in long double.
TEST(RotaryAngles, CommonFrequencies) {
  static_assert(std::numeric_limits<long double>::digits >= 64);
  double worst = 0;
  for (double base : {10000.0, 500000.0, 1e6}) {
    std::vector<double> frequencies;
    for (int i = 0; i < 64; ++i) frequencies.push_back(std::pow(base, -i / 64.0));
    const RotaryAngles angles(frequencies);
    ASSERT_EQ(angles.size(), 64);
    for (std::int64_t position = -100; position < 2048; ++position) {
      for (std::int64_t i = 0; i < 64; ++i) {
        const long double angle = static_cast<long double>(frequencies[static_cast<std::size_t>(i)]) * position;
        const SineAndCosine actual = angles.At(position, i);
        worst = std::max(worst, static_cast<double>(std::abs(actual.sine - std::sin(angle))));
        worst = std::max(worst, static_cast<double>(std::abs(actual.cosine - std::cos(angle))));
      }
    }
  }
  EXPECT_LE(worst, kTolerance);
  EXPECT_GT(worst, 1e-18) << "nothing was compared";
}

// All around the circle, with the seams of its quarters.
TEST(RotaryAngles, WholeCircle) {
  testing::QuickRandom random(5);
  double worst = 0;
  for (int i = 0; i < 100000; ++i) {
    const double seam = 0.7853981633974483 * (i % 9);
    const double frequency = i % 2 == 0 ? seam + 1e-9 * double{random.Uniform()} : 6.3 * double{random.Uniform()};
    const SineAndCosine actual = RotaryAngles({&frequency, 1}).At(1, 0);
    worst = std::max(worst, static_cast<double>(std::abs(actual.sine - std::sin(static_cast<long double>(frequency)))));
    worst =
        std::max(worst, static_cast<double>(std::abs(actual.cosine - std::cos(static_cast<long double>(frequency)))));
  }
  EXPECT_LE(worst, kTolerance);
}

TEST(RotaryAngles, PositionZeroTurnsNothing) {
  for (double frequency : {0.0, -0.0, 1.0, -3.5, kMaxRotaryFrequency, -kMaxRotaryFrequency, 5e-324}) {
    const SineAndCosine actual = RotaryAngles({&frequency, 1}).At(0, 0);
    EXPECT_EQ(actual.sine, 0);
    EXPECT_EQ(actual.cosine, 1);
  }
}

// (1, 0) and (0, 1) by a quarter turn at position 1; what is not of a pair stays.
template <typename T>
void ExpectQuarterTurns() {
  const double frequencies[] = {1.5707963267948966, 0.0};
  const RotaryAngles angles(frequencies);
  std::vector<T> half = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  RotaryApplier<T>(angles, false).Apply(1, 2, 5, half.data());
  const double half_expected[] = {-3, 2, 1, 4, 5, -8, 7, 6, 9, 10};
  std::vector<T> interleaved = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  RotaryApplier<T>(angles, true).Apply(1, 2, 5, interleaved.data());
  const double interleaved_expected[] = {-2, 1, 3, 4, 5, -7, 6, 8, 9, 10};
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_NEAR(half[i], half_expected[i], 1e-6) << i;
    EXPECT_NEAR(interleaved[i], interleaved_expected[i], 1e-6) << i;
  }
}

TEST(RotaryApplier, QuarterTurns) {
  ExpectQuarterTurns<float>();
  ExpectQuarterTurns<double>();
}

TEST(RotaryApplier, NewPositionNewAngles) {
  const double frequency = 0.3;
  const RotaryAngles angles({&frequency, 1});
  RotaryApplier<double> applier(angles, false);
  for (std::int64_t position : {0, 5, 5, -2, 7}) {
    double row[] = {1, 0};
    applier.Apply(position, 1, 2, row);
    EXPECT_NEAR(row[0], std::cos(0.3 * static_cast<double>(position)), 1e-15);
    EXPECT_NEAR(row[1], std::sin(0.3 * static_cast<double>(position)), 1e-15);
  }
}

}  // namespace
}  // namespace attend
