// A picture in memory, with rectangles, text and PNG.
#ifndef ATTEND_CLIENT_CLI_DRAW_CANVAS_H_
#define ATTEND_CLIENT_CLI_DRAW_CANVAS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/draw/color_scale.h"

namespace attend::client {

// Pixels with the origin at the top left; everything drawn outside is cut off. Thread-compatible.
class Canvas {
 public:
  static constexpr int kTextScale = 2;  // Pixels to a dot of the font.
  static constexpr int kTextHeight = 7 * kTextScale;
  static constexpr int kTextAdvance = 6 * kTextScale;  // From one character to the next.

  // A white canvas. REQUIRES: both at least 1.
  Canvas(int width, int height);

  int width() const { return width_; }
  int height() const { return height_; }
  Rgb at(int x, int y) const { return pixels_[static_cast<std::size_t>(y) * width_ + x]; }

  void Fill(int x, int y, int width, int height, const Rgb& color);

  // An outline of one pixel around the inside of the rectangle.
  void Frame(int x, int y, int width, int height, const Rgb& color);

  // Text with its top left corner at (x, y). Characters that the font (bitmap_font.h) does not have are left
  // blank.
  void Text(int x, int y, const std::string& text, const Rgb& color);

  // Text that runs upwards, with its bottom left corner at (x, y).
  void TextUp(int x, int y, const std::string& text, const Rgb& color);

  static int TextWidth(const std::string& text) { return static_cast<int>(text.size()) * kTextAdvance - kTextScale; }

  // The picture as a PNG file's contents. Errors: UNKNOWN with libpng's message.
  absl::StatusOr<std::string> Png() const;

 private:
  int width_;
  int height_;
  std::vector<Rgb> pixels_;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_DRAW_CANVAS_H_
