// A font of 5 x 7 dots, enough for the labels of a plot.
#ifndef ATTEND_CLIENT_CLI_DRAW_BITMAP_FONT_H_
#define ATTEND_CLIENT_CLI_DRAW_BITMAP_FONT_H_

namespace attend::client {

inline constexpr int kGlyphRows = 7;
inline constexpr int kGlyphColumns = 5;

// Whether the dot at (row, column) of `character` is set. Known are lower-case letters, digits and `.,-+:_()[]`;
// everything else is blank. REQUIRES: 0 <= row < kGlyphRows, 0 <= column < kGlyphColumns.
bool GlyphDot(char character, int row, int column);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_DRAW_BITMAP_FONT_H_
