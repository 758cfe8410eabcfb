#include "client/cli/draw/canvas.h"

#include <png.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/draw/bitmap_font.h"

namespace attend::client {

static_assert(sizeof(Rgb) == 3, "libpng reads rows of packed pixels");

Canvas::Canvas(int width, int height)
    : width_(width), height_(height), pixels_(static_cast<std::size_t>(width) * height, Rgb{255, 255, 255}) {}

void Canvas::Fill(int x, int y, int width, int height, const Rgb& color) {
  const int right = std::min(x + width, width_);
  for (int row = std::max(y, 0); row < std::min(y + height, height_); ++row) {
    for (int column = std::max(x, 0); column < right; ++column) {
      pixels_[static_cast<std::size_t>(row) * width_ + column] = color;
    }
  }
}

void Canvas::Frame(int x, int y, int width, int height, const Rgb& color) {
  Fill(x, y, width, 1, color);
  Fill(x, y + height - 1, width, 1, color);
  Fill(x, y, 1, height, color);
  Fill(x + width - 1, y, 1, height, color);
}

void Canvas::Text(int x, int y, const std::string& text, const Rgb& color) {
  for (const char character : text) {
    for (int row = 0; row < kGlyphRows; ++row) {
      for (int column = 0; column < kGlyphColumns; ++column) {
        if (!GlyphDot(character, row, column)) continue;
        Fill(x + column * kTextScale, y + row * kTextScale, kTextScale, kTextScale, color);
      }
    }
    x += kTextAdvance;
  }
}

void Canvas::TextUp(int x, int y, const std::string& text, const Rgb& color) {
  for (const char character : text) {
    for (int row = 0; row < kGlyphRows; ++row) {
      for (int column = 0; column < kGlyphColumns; ++column) {
        if (!GlyphDot(character, row, column)) continue;
        Fill(x + row * kTextScale, y - (column + 1) * kTextScale, kTextScale, kTextScale, color);
      }
    }
    y -= kTextAdvance;
  }
}

absl::StatusOr<std::string> Canvas::Png() const {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width_);
  image.height = static_cast<png_uint_32>(height_);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string contents(size, '\0');
  if (png_image_write_to_memory(&image, contents.data(), &size, 0, pixels_.data(), 0, nullptr) == 0) {
    return absl::UnknownError(absl::StrCat("cannot encode the PNG: ", image.message));
  }
  contents.resize(size);
  return contents;
}

}  // namespace attend::client
