#include "client/draw/color_scale.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "absl/strings/str_format.h"

namespace attend::client {
namespace {

constexpr Rgb kAnchors[] = {{12, 8, 42},   {58, 18, 98},   {118, 34, 112}, {180, 54, 94},
                            {226, 92, 62}, {248, 150, 52}, {250, 206, 94}, {253, 250, 200}};
constexpr float kLogSpan = 1e-6F;  // The smallest weight of a logarithmic scale, as a share of the largest.

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

// 1, 2 or 5 times a power of ten, about a `wanted`-th of `span`.
double RoundStep(double span, int wanted) {
  const double rough = span / wanted;
  double step = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if (step < rough) step *= factor;
  }
  return step;
}

}  // namespace

Rgb ContrastingText(const Rgb& background) {
  // The luma of ITU-R BT.601.
  const float luma = 0.299f * background.red + 0.587f * background.green + 0.114f * background.blue;
  return luma > 130 ? Rgb{0, 0, 0} : Rgb{255, 255, 255};
}

int PaletteIndex(const Rgb& color) {
  return 16 + 36 * CubeStep(color.red) + 6 * CubeStep(color.green) + CubeStep(color.blue);
}

ColorScale::ColorScale(absl::Span<const WeightMap> maps, bool is_log) : is_log_(is_log) {
  float min = std::numeric_limits<float>::infinity();
  for (const WeightMap& map : maps) {
    for (const float cell : map.cells) {
      has_zero_ = has_zero_ || cell == 0;
      has_nan_ = has_nan_ || std::isnan(cell);
      if (cell == 0 || std::isnan(cell)) continue;
      min = std::min(min, cell);
      max_ = std::max(max_, cell);
    }
  }
  min_ = std::min(min, max_);
  if (is_log_) min_ = std::max(min_, max_ * kLogSpan);
}

float ColorScale::Fraction(float weight) const {
  if (std::isnan(weight)) return weight;
  if (!(max_ > min_)) return 1;
  const float fraction =
      is_log_ ? std::log(std::max(weight, min_) / min_) / std::log(max_ / min_) : (weight - min_) / (max_ - min_);
  return std::clamp(fraction, 0.0f, 1.0f);
}

Rgb ColorScale::Color(float weight) const {
  if (weight == 0) return kZeroColor;
  const float fraction = Fraction(weight);  // NaN also where the scale reaches infinity, which no weight should.
  return std::isnan(fraction) ? kNanColor : ColorAt(fraction);
}

Rgb ColorScale::ColorAt(float fraction) {
  constexpr int kSteps = static_cast<int>(std::size(kAnchors)) - 1;
  const float position = std::clamp(fraction, 0.0f, 1.0f) * kSteps;
  const int index = std::min(static_cast<int>(position), kSteps - 1);
  const float share = position - static_cast<float>(index);
  const Rgb& from = kAnchors[index];
  const Rgb& to = kAnchors[index + 1];
  return {Mix(from.red, to.red, share), Mix(from.green, to.green, share), Mix(from.blue, to.blue, share)};
}

std::vector<Tick> ColorScale::Ticks(int wanted) const {
  std::vector<Tick> ticks;
  const auto add = [&](double weight) {
    ticks.push_back({Fraction(static_cast<float>(weight)), absl::StrFormat("%.4g", weight)});
  };
  if (!(max_ > min_)) {
    ticks.push_back({1, absl::StrFormat("%.4g", max_)});
  } else if (is_log_ && max_ / min_ > 100) {
    for (double power = std::ceil(std::log10(min_) - 1e-6); power <= std::log10(max_) + 1e-6; ++power)
      add(std::pow(10.0, power));
  } else {
    const double step = RoundStep(static_cast<double>(max_) - min_, wanted);
    // A tolerance of a millionth of a step lets a tick stand on the last value itself.
    for (double i = std::ceil(min_ / step - 1e-6); i * step <= max_ + step * 1e-6; ++i) add(i * step);
  }
  return ticks;
}

}  // namespace attend::client
