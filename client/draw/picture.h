// A drawing that Cairo turns into a PNG or SVG file.
#ifndef ATTEND_CLIENT_DRAW_PICTURE_H_
#define ATTEND_CLIENT_DRAW_PICTURE_H_

#include <cairo.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/draw/color_scale.h"

namespace attend::client {

// Errors: INVALID_ARGUMENT unless `path` ends in .png or .svg.
absl::Status CheckPicturePath(const std::string& path);

struct Box {
  double x = 0;  // Of the top left corner, as y; in points. x grows to the right, y downwards.
  double y = 0;
  double width = 0;
  double height = 0;
};

struct TextStyle {
  double size = 11;
  Rgb color = {38, 38, 46};
  double align = 0;  // Which point of the text stands at x: 0 its start, 0.5 its middle, 1 its end.
  double angle = 0;  // In radians, clockwise, about that point.
  bool bold = false;
};

// Everything is recorded without bounds; the file is as large as what was drawn. Text is centred vertically on its y.
// Thread-compatible.
class Picture {
 public:
  // `font` is a family as fontconfig knows it.
  explicit Picture(std::string font);

  double TextWidth(const std::string& text, const TextStyle& style = {});
  void Text(double x, double y, const std::string& text, const TextStyle& style = {});
  void Fill(const Box& box, const Rgb& color);
  void Frame(const Box& box, const Rgb& color);
  void Line(double x1, double y1, double x2, double y2, const Rgb& color);
  // Diagonal lines, which tell a cell without a weight from one with a colour.
  void Hatch(const Box& box, const Rgb& color);
  // Fills `box` with `colors`, [rows, columns], without smoothing.
  void Raster(const Box& box, const std::vector<Rgb>& colors, int rows, int columns);

  // The contents of a file for `path`, whose ending says which format. Errors: INVALID_ARGUMENT when the font lacks a
  // character, and as CheckPicturePath; UNKNOWN when there is no font, and with Cairo's message.
  absl::StatusOr<std::string> Finish(const std::string& path);

 private:
  using Surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;
  using Context = std::unique_ptr<cairo_t, decltype(&cairo_destroy)>;

  void SetColor(const Rgb& color);
  void SetFont(const TextStyle& style);
  void CheckGlyphs(const std::string& text);

  std::string font_;
  Surface recording_;
  Context context_;
  absl::Status status_;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_PICTURE_H_
