// From a weight to a colour: dark for little, light for much, each step lighter than the last, so that it also reads in
// grey. A weight of exactly 0, as masked keys have it, has a colour of its own.
#ifndef ATTEND_CLIENT_DRAW_COLOR_SCALE_H_
#define ATTEND_CLIENT_DRAW_COLOR_SCALE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "client/draw/weight_map.h"

namespace attend::client {

struct Rgb {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
};

// Black or white, whichever is easier to read on `background`.
Rgb ContrastingText(const Rgb& background);

// The nearest of the 216 colours of the 256-colour palette's cube: 16 to 231.
int PaletteIndex(const Rgb& color);

inline constexpr Rgb kZeroColor = {228, 228, 234};
inline constexpr Rgb kNanColor = {0, 160, 170};

// A mark on the scale: `fraction` is where, in [0, 1].
struct Tick {
  double fraction = 0;
  std::string label;
};

// What the colours of one drawing stand for. Immutable.
class ColorScale {
 public:
  // Ranges over all weights of `maps` but 0 and NaN. On a logarithmic scale, weights below 1e-6 of the largest are
  // drawn as that.
  ColorScale(absl::Span<const WeightMap> maps, bool is_log);

  bool is_log() const { return is_log_; }
  float min() const { return min_; }
  float max() const { return max_; }
  bool has_zero() const { return has_zero_; }
  bool has_nan() const { return has_nan_; }

  // Where `weight` lies between the two, in [0, 1]; NaN for NaN. 1 when there is no range.
  float Fraction(float weight) const;
  Rgb Color(float weight) const;
  static Rgb ColorAt(float fraction);

  // About `wanted` round numbers in the range, or powers of ten on a logarithmic scale that spans several.
  std::vector<Tick> Ticks(int wanted) const;

 private:
  bool is_log_;
  bool has_zero_ = false;
  bool has_nan_ = false;
  float min_ = 0;
  float max_ = 0;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_COLOR_SCALE_H_
