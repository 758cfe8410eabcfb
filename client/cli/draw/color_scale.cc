#include "client/cli/draw/color_scale.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace attend::client {
namespace {

constexpr Rgb kAnchors[] = {{12, 8, 42},   {58, 18, 98},   {118, 34, 112}, {180, 54, 94},
                            {226, 92, 62}, {248, 150, 52}, {250, 206, 94}, {253, 250, 200}};
constexpr Rgb kNotANumber = {128, 128, 128};

std::uint8_t Mix(std::uint8_t from, std::uint8_t to, float share) {
  return static_cast<std::uint8_t>(std::lround(from + (to - from) * share));
}

int CubeStep(std::uint8_t channel) {
  constexpr int kLevels[] = {0, 95, 135, 175, 215, 255};
  int best = 0;
  for (int i = 1; i < 6; ++i) {
    if (std::abs(kLevels[i] - channel) < std::abs(kLevels[best] - channel)) best = i;
  }
  return best;
}

}  // namespace

Rgb ScaleColor(float fraction) {
  if (std::isnan(fraction)) return kNotANumber;
  constexpr int kSteps = static_cast<int>(std::size(kAnchors)) - 1;
  const float position = std::clamp(fraction, 0.0f, 1.0f) * kSteps;
  const int index = std::min(static_cast<int>(position), kSteps - 1);
  const float share = position - static_cast<float>(index);
  const Rgb& from = kAnchors[index];
  const Rgb& to = kAnchors[index + 1];
  return {Mix(from.red, to.red, share), Mix(from.green, to.green, share), Mix(from.blue, to.blue, share)};
}

Rgb ContrastingText(const Rgb& background) {
  // The luma of ITU-R BT.601.
  const float luma = 0.299f * background.red + 0.587f * background.green + 0.114f * background.blue;
  return luma > 130 ? Rgb{0, 0, 0} : Rgb{255, 255, 255};
}

int PaletteIndex(const Rgb& color) {
  return 16 + 36 * CubeStep(color.red) + 6 * CubeStep(color.green) + CubeStep(color.blue);
}

std::vector<double> Ticks(double min, double max, int wanted) {
  const double rough = (max - min) / wanted;
  double step = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if (step < rough) step *= factor;
  }
  std::vector<double> ticks;
  // A tolerance of a millionth of a step lets a tick stand on the last value itself.
  for (double i = std::ceil(min / step - 1e-6); i * step <= max + step * 1e-6; ++i) ticks.push_back(i * step + 0.0);
  return ticks;
}

}  // namespace attend::client
