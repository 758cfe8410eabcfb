#include "client/draw/picture.h"

#include <cairo-svg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attend::client {
namespace {

constexpr double kPadding = 14;
constexpr double kPixelsPerPoint = 2;  // Of a PNG.

cairo_status_t Append(void* out, const unsigned char* data, unsigned int size) {
  static_cast<std::string*>(out)->append(reinterpret_cast<const char*>(data), size);
  return CAIRO_STATUS_SUCCESS;
}

absl::Status ToStatus(cairo_status_t status) {
  if (status == CAIRO_STATUS_SUCCESS) return absl::OkStatus();
  if (status == CAIRO_STATUS_INVALID_STRING) return absl::InvalidArgumentError("a label is not valid UTF-8");
  return absl::UnknownError(absl::StrCat("cannot draw the picture: ", cairo_status_to_string(status)));
}

}  // namespace

absl::Status CheckPicturePath(const std::string& path) {
  for (const char* ending : {".png", ".svg"}) {
    if (absl::EndsWith(path, ending)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("--plot ", path, ": expected a .png or .svg file"));
}

Picture::Picture(std::string font)
    : font_(std::move(font)),
      recording_(cairo_recording_surface_create(CAIRO_CONTENT_COLOR_ALPHA, nullptr), cairo_surface_destroy),
      context_(cairo_create(recording_.get()), cairo_destroy) {
  cairo_set_line_width(context_.get(), 1);
  cairo_font_options_t* const options = cairo_font_options_create();
  cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
  cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
  cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
  cairo_set_font_options(context_.get(), options);
  cairo_font_options_destroy(options);
}

void Picture::SetColor(const Rgb& color) {
  cairo_set_source_rgb(context_.get(), color.red / 255.0, color.green / 255.0, color.blue / 255.0);
}

void Picture::SetFont(const TextStyle& style) {
  cairo_select_font_face(context_.get(), font_.c_str(), CAIRO_FONT_SLANT_NORMAL,
                         style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(context_.get(), style.size);
}

void Picture::CheckGlyphs(const std::string& text) {
  cairo_scaled_font_t* const font = cairo_get_scaled_font(context_.get());
  cairo_glyph_t* glyphs = nullptr;
  int count = 0;
  status_.Update(ToStatus(cairo_scaled_font_text_to_glyphs(font, 0, 0, text.data(), static_cast<int>(text.size()),
                                                           &glyphs, &count, nullptr, nullptr, nullptr)));
  bool missing = false;
  for (int i = 0; i < count; ++i) missing = missing || glyphs[i].index == 0;
  cairo_glyph_free(glyphs);
  // Without fonts Cairo falls back on a font of its own for tests.
  if (cairo_scaled_font_get_type(font) == CAIRO_FONT_TYPE_USER) {
    status_.Update(absl::UnknownError(
        "--plot needs a font and none is installed; install one, for example Debian's fonts-dejavu-core"));
  } else if (missing) {
    status_.Update(absl::InvalidArgumentError(absl::StrCat("the font '", font_, "' lacks a character of '", text,
                                                           "'; choose one that has it with --plot-font FAMILY")));
  }
}

double Picture::TextWidth(const std::string& text, const TextStyle& style) {
  SetFont(style);
  cairo_text_extents_t extents;
  cairo_text_extents(context_.get(), text.c_str(), &extents);
  return extents.x_advance;
}

void Picture::Text(double x, double y, const std::string& text, const TextStyle& style) {
  const double width = TextWidth(text, style);
  CheckGlyphs(text);
  cairo_save(context_.get());
  SetColor(style.color);
  cairo_translate(context_.get(), x, y);
  cairo_rotate(context_.get(), style.angle);
  cairo_move_to(context_.get(), -style.align * width, style.size * 0.36);  // Half the height of a digit.
  cairo_show_text(context_.get(), text.c_str());
  cairo_restore(context_.get());
}

void Picture::Fill(const Box& box, const Rgb& color) {
  SetColor(color);
  cairo_set_antialias(context_.get(), CAIRO_ANTIALIAS_NONE);  // Neighbours touch without a seam.
  cairo_rectangle(context_.get(), box.x, box.y, box.width, box.height);
  cairo_fill(context_.get());
  cairo_set_antialias(context_.get(), CAIRO_ANTIALIAS_DEFAULT);
}

void Picture::Frame(const Box& box, const Rgb& color) {
  SetColor(color);
  cairo_rectangle(context_.get(), box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
  cairo_stroke(context_.get());
}

void Picture::Line(double x1, double y1, double x2, double y2, const Rgb& color) {
  SetColor(color);
  cairo_move_to(context_.get(), x1, y1);
  cairo_line_to(context_.get(), x2, y2);
  cairo_stroke(context_.get());
}

void Picture::Hatch(const Box& box, const Rgb& color) {
  constexpr double kSpacing = 6;
  cairo_save(context_.get());
  cairo_rectangle(context_.get(), box.x, box.y, box.width, box.height);
  cairo_clip(context_.get());
  // Lines x + y = c of the whole picture, so that those of neighbours meet.
  const double last = box.x + box.y + box.width + box.height;
  for (double sum = std::ceil((box.x + box.y) / kSpacing) * kSpacing; sum < last; sum += kSpacing) {
    Line(sum - box.y, box.y, sum - box.y - box.height, box.y + box.height, color);
  }
  cairo_restore(context_.get());
}

void Picture::Raster(const Box& box, const std::vector<Rgb>& colors, int rows, int columns) {
  // Viewers of vector files smooth images that they enlarge, so a cell is as many pixels as it will be drawn with.
  const int wide = std::max(1, static_cast<int>(std::lround(kPixelsPerPoint * box.width / columns)));
  const int high = std::max(1, static_cast<int>(std::lround(kPixelsPerPoint * box.height / rows)));
  const Surface image(cairo_image_surface_create(CAIRO_FORMAT_RGB24, columns * wide, rows * high),
                      cairo_surface_destroy);
  status_.Update(ToStatus(cairo_surface_status(image.get())));
  if (!status_.ok()) return;
  unsigned char* const data = cairo_image_surface_get_data(image.get());
  for (int y = 0; y < rows * high; ++y) {
    auto* const line = reinterpret_cast<std::uint32_t*>(data + y * cairo_image_surface_get_stride(image.get()));
    for (int x = 0; x < columns * wide; ++x) {
      const Rgb& color = colors[static_cast<std::size_t>(y / high) * columns + x / wide];
      line[x] = std::uint32_t{color.red} << 16 | std::uint32_t{color.green} << 8 | color.blue;
    }
  }
  cairo_surface_mark_dirty(image.get());
  cairo_save(context_.get());
  cairo_translate(context_.get(), box.x, box.y);
  cairo_scale(context_.get(), box.width / (columns * wide), box.height / (rows * high));
  cairo_set_source_surface(context_.get(), image.get(), 0, 0);
  cairo_pattern_set_filter(cairo_get_source(context_.get()), CAIRO_FILTER_NEAREST);
  cairo_rectangle(context_.get(), 0, 0, columns * wide, rows * high);
  cairo_fill(context_.get());
  cairo_restore(context_.get());
}

absl::StatusOr<std::string> Picture::Finish(const std::string& path) {
  status_.Update(ToStatus(cairo_status(context_.get())));
  status_.Update(CheckPicturePath(path));
  if (!status_.ok()) return status_;
  double x = 0, y = 0, width = 0, height = 0;
  cairo_recording_surface_ink_extents(recording_.get(), &x, &y, &width, &height);
  // Whole points keep the edges of cells on pixels.
  x = std::floor(x) - kPadding, y = std::floor(y) - kPadding;
  width = std::ceil(width) + 2 * kPadding, height = std::ceil(height) + 2 * kPadding;
  const bool is_png = absl::EndsWith(path, ".png");
  const double scale = is_png ? kPixelsPerPoint : 1;
  std::string contents;
  const Surface target(is_png ? cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(width * scale),
                                                           static_cast<int>(height * scale))
                              : cairo_svg_surface_create_for_stream(Append, &contents, width, height),
                       cairo_surface_destroy);
  const Context out(cairo_create(target.get()), cairo_destroy);
  cairo_set_source_rgb(out.get(), 1, 1, 1);
  cairo_paint(out.get());
  cairo_scale(out.get(), scale, scale);
  cairo_set_source_surface(out.get(), recording_.get(), -x, -y);
  cairo_paint(out.get());
  absl::Status status = ToStatus(cairo_status(out.get()));
  if (is_png) status.Update(ToStatus(cairo_surface_write_to_png_stream(target.get(), Append, &contents)));
  cairo_surface_finish(target.get());  // Writes the rest of a vector file.
  status.Update(ToStatus(cairo_surface_status(target.get())));
  if (!status.ok()) return status;
  return contents;
}

}  // namespace attend::client
