// Draws attention weights as text, as well as a terminal can show it.
#ifndef ATTEND_CLIENT_DRAW_HEATMAP_H_
#define ATTEND_CLIENT_DRAW_HEATMAP_H_

#include <cstdint>
#include <string>

#include "client/draw/draw_style.h"
#include "client/draw/weight_map.h"

namespace attend::client {

enum class ColorDepth : std::uint8_t { kNone, k256, kTrueColor };

struct Terminal {
  bool is_tty = false;
  ColorDepth color = ColorDepth::kNone;
  bool utf8 = false;  // Whether block characters can be shown.
  int columns = 80;
};

// Looks at a file descriptor and the environment: TERM, COLORTERM, LC_ALL / LC_CTYPE / LANG, COLUMNS, and NO_COLOR
// (https://no-color.org), which switches colour off when set to anything.
Terminal DetectTerminal(int file_descriptor);

// A heatmap of `map` with axis labels and a scale, each line ended by a newline: queries downwards, keys across. Small
// maps show their numbers; large ones are averaged down to what fits into `terminal.columns`. With colour and UTF-8,
// half blocks give two rows to a line; without colour, characters stand for weights: ".:-=+*#%@" from the smallest to
// the largest. A weight of 0 is grey, or blank. The last line is the scale. REQUIRES: labels that fit the map.
std::string DrawHeatmap(const WeightMap& map, const DrawStyle& style, const Terminal& terminal);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_HEATMAP_H_
