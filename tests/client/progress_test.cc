// When the progress line of a batch appears, what it says, and that it is gone when something else is printed.
#include "client/cli/commands/progress.h"

#include <gtest/gtest.h>

#include <string>

namespace attend::client {
namespace {

// Draws for a batch that starts at second 0 of a clock that the test turns.
class ProgressLineTest : public ::testing::Test {
 protected:
  std::string At(double seconds) { return line_.Tick(kStart + absl::Seconds(seconds)); }

  const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);
  ProgressLine line_{3, kStart};
};

TEST_F(ProgressLineTest, ABatchThatTakesLessThanASecondShowsNothing) {
  for (std::size_t i = 0; i < 3; ++i) {
    line_.Begin(i, "x.npy");
    EXPECT_EQ(At(0.3 * static_cast<double>(i + 1)), "");
    EXPECT_EQ(line_.Pause(), "") << "nothing was drawn, so nothing is wiped";
  }
  line_.Begin(2, "x.npy");
  EXPECT_EQ(At(0.999), "");
}

TEST_F(ProgressLineTest, ALongerOneCountsItsPiecesFromTheStartOfTheWhole) {
  line_.Begin(0, "a.npy");
  EXPECT_EQ(At(1), "\r\x1b[K1/3 a.npy  1.0 s");
  EXPECT_EQ(line_.Pause(), "\r\x1b[K");
  line_.Begin(1, "b.npy");
  EXPECT_EQ(At(1.1), "\r\x1b[K2/3 b.npy  1.1 s") << "the next piece is shown at once where the line was wiped";
  line_.Pause();
  line_.Begin(2, "c.npy");
  EXPECT_EQ(At(61), "\r\x1b[K3/3 c.npy  61.0 s");
}

TEST_F(ProgressLineTest, IsDrawnAnewFourTimesASecondAtMost) {
  line_.Begin(0, "a.npy");
  int drawn = 0;
  for (int tick = 0; tick < 400; ++tick) drawn += At(1 + 0.01 * tick).empty() ? 0 : 1;
  EXPECT_GE(drawn, 15);
  EXPECT_LE(drawn, 16) << "in four seconds";
}

TEST_F(ProgressLineTest, NothingIsDrawnBetweenThePieces) {
  EXPECT_EQ(At(5), "") << "nothing has begun";
  line_.Begin(0, "a.npy");
  EXPECT_NE(At(6), "");
  EXPECT_EQ(line_.Pause(), "\r\x1b[K");
  EXPECT_EQ(line_.Pause(), "") << "wiped once";
  EXPECT_EQ(At(9), "");
}

TEST_F(ProgressLineTest, WordsOfTheCallersOwnStandInPlaceOfTheCount) {
  line_.Show("minilm/0");
  EXPECT_EQ(At(1.5), "\r\x1b[Kminilm/0  1.5 s");
}

TEST(UploadText, ShowsTheShareAsABarAndInBytes) {
  constexpr std::int64_t kMebibyte = 1 << 20;
  EXPECT_EQ(UploadText("a", {0, 100 * kMebibyte}), "a [                    ]   0 %  0 bytes of 100 MiB");
  EXPECT_EQ(UploadText("a", {52 * kMebibyte, 100 * kMebibyte}), "a [##########          ]  52 %  52 MiB of 100 MiB");
  EXPECT_EQ(UploadText("a", {100 * kMebibyte - 1, 100 * kMebibyte}),
            "a [################### ]  99 %  100 MiB of 100 MiB");
}

TEST(UploadText, WhenAllIsSentTheServerIsWaitedFor) {
  EXPECT_EQ(UploadText("a", {7, 7}), "a [####################] 100 %  waiting for the server");
  EXPECT_EQ(UploadText("a", {8, 7}), "a [####################] 100 %  waiting for the server") << "the file has grown";
}

TEST(UploadText, WithoutAKnownSizeThereIsNoShare) {
  EXPECT_EQ(UploadText("a", {3 << 19, std::nullopt}), "a  1.5 MiB");
  EXPECT_EQ(UploadText("a", {0, 0}), "a  0 bytes");
}

}  // namespace
}  // namespace attend::client
