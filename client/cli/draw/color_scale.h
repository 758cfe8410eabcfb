// From a weight to a colour: dark for nothing, light for much, each step lighter than the last, so that it also reads
// in grey.
#ifndef ATTEND_CLIENT_CLI_DRAW_COLOR_SCALE_H_
#define ATTEND_CLIENT_CLI_DRAW_COLOR_SCALE_H_

#include <cstdint>
#include <vector>

namespace attend::client {

struct Rgb {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
};

// `fraction` is clamped to [0, 1]; NaN is grey.
Rgb ScaleColor(float fraction);

// Black or white, whichever is easier to read on `background`.
Rgb ContrastingText(const Rgb& background);

// The nearest of the 216 colours of the 256-colour palette's cube: 16 to 231.
int PaletteIndex(const Rgb& color);

// Round numbers (1, 2 or 5 times a power of ten apart) in [min, max], about `wanted` of them. REQUIRES: min < max, both
// finite, wanted >= 2.
std::vector<double> Ticks(double min, double max, int wanted);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_DRAW_COLOR_SCALE_H_
