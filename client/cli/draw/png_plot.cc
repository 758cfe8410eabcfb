#include "client/cli/draw/png_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace attend::client {
namespace {

constexpr Rgb kInk{30, 30, 36};
constexpr std::int64_t kMaxCells = 768;  // Of one panel, along each axis.
constexpr int kLeft = 92;                // Margins of a panel: room for labels.
constexpr int kTop = 40;
constexpr int kRight = 24;
constexpr int kBottom = 60;
constexpr int kTick = 6;
constexpr int kGap = 6;
constexpr int kBarWidth = 22;
constexpr int kBarRoom = 160;  // The bar and its labels.
constexpr int kMinBarHeight = 160;

// Pixels to a cell.
struct CellSize {
  int width = 1;
  int height = 1;
};

// So that each side of a panel comes near 420 pixels (220 when there are many): cells of a square map are square, and a
// map of a few rows is still something to see.
CellSize CellPixels(const WeightMap& map, std::size_t panels) {
  const std::int64_t wanted = panels == 1 ? 420 : 220;
  const auto pixels = [wanted](std::int64_t count) {
    return static_cast<int>(std::clamp<std::int64_t>(wanted / count, 1, 72));
  };
  return {pixels(map.cols), pixels(map.rows)};
}

// Draws one panel, with the top left corner of the map itself at (x, y).
class Panel {
 public:
  Panel(const WeightMap& map, const CellSize& cell, const WeightRange& range, Canvas* canvas)
      : map_(map), cell_(cell), range_(range), canvas_(canvas) {}

  int width() const { return static_cast<int>(map_.cols) * cell_.width; }
  int height() const { return static_cast<int>(map_.rows) * cell_.height; }

  void Draw(int x, int y) {
    for (std::int64_t row = 0; row < map_.rows; ++row) {
      for (std::int64_t col = 0; col < map_.cols; ++col) {
        const float weight = map_.at(row, col);
        canvas_->Fill(x + static_cast<int>(col) * cell_.width, y + static_cast<int>(row) * cell_.height, cell_.width,
                      cell_.height, ScaleColor(range_.Fraction(weight)));
      }
    }
    canvas_->Frame(x - 1, y - 1, width() + 2, height() + 2, kInk);
    canvas_->Text(x, y - Canvas::kTextHeight - 2 * kGap, map_.title, kInk);
    DrawKeyAxis(x, y + height());
    DrawQueryAxis(x, y);
  }

 private:
  // The token indices to label: whole numbers, the last below `count`.
  static std::vector<std::int64_t> Indices(std::int64_t count, int pixels, int spacing) {
    std::vector<std::int64_t> indices;
    const double last = static_cast<double>(std::max<std::int64_t>(count - 1, 1));
    const int wanted = std::max(2, pixels / spacing);
    for (const double tick : Ticks(0, last, wanted)) {
      if (tick == std::floor(tick) && tick < static_cast<double>(count)) indices.push_back(std::llround(tick));
    }
    return indices;
  }

  // The middle of token `index`, in pixels from the start of an axis.
  static int Middle(std::int64_t index, std::int64_t count, int pixels) {
    return static_cast<int>((static_cast<double>(index) + 0.5) * pixels / static_cast<double>(count));
  }

  void DrawKeyAxis(int x, int y) {
    for (const std::int64_t index : Indices(map_.num_keys, width(), 56)) {
      const int at = x + Middle(index, map_.num_keys, width());
      const std::string label = absl::StrCat(index);
      canvas_->Fill(at, y + 1, 1, kTick, kInk);
      canvas_->Text(at - Canvas::TextWidth(label) / 2, y + kTick + kGap, label, kInk);
    }
    const std::string name = "key token";
    canvas_->Text(x + (width() - Canvas::TextWidth(name)) / 2, y + kTick + 2 * kGap + Canvas::kTextHeight, name, kInk);
  }

  void DrawQueryAxis(int x, int y) {
    for (const std::int64_t index : Indices(map_.num_queries, height(), 36)) {
      const int at = y + Middle(index, map_.num_queries, height());
      const std::string label = absl::StrCat(index);
      canvas_->Fill(x - 1 - kTick, at, kTick, 1, kInk);
      canvas_->Text(x - kTick - kGap - Canvas::TextWidth(label), at - Canvas::kTextHeight / 2, label, kInk);
    }
    const std::string name = "query token";
    canvas_->TextUp(x - kLeft + kGap, y + (height() + Canvas::TextWidth(name)) / 2, name, kInk);
  }

  const WeightMap& map_;
  CellSize cell_;
  const WeightRange& range_;
  Canvas* canvas_;
};

void DrawColorBar(int x, int y, int height, const WeightRange& range, Canvas* canvas) {
  for (int row = 0; row < height; ++row) {
    canvas->Fill(x, y + row, kBarWidth, 1, ScaleColor(1 - static_cast<float>(row) / static_cast<float>(height - 1)));
  }
  canvas->Frame(x - 1, y - 1, kBarWidth + 2, height + 2, kInk);
  const double span = range.max > range.min ? static_cast<double>(range.max) - range.min : 1;
  for (const double tick : Ticks(range.min, range.min + span, 5)) {
    const int at = y + static_cast<int>(std::lround((1 - (tick - range.min) / span) * (height - 1)));
    canvas->Fill(x + kBarWidth + 1, at, kTick, 1, kInk);
    canvas->Text(x + kBarWidth + kTick + kGap, at - Canvas::kTextHeight / 2, absl::StrFormat("%.4g", tick), kInk);
  }
  canvas->Text(x, y - Canvas::kTextHeight - 2 * kGap, "weight", kInk);
}

}  // namespace

Canvas PlotWeights(absl::Span<const WeightMap> maps) {
  std::vector<WeightMap> pooled;
  for (const WeightMap& map : maps) pooled.push_back(Pool(map, kMaxCells, kMaxCells));
  const WeightRange range = RangeOf(pooled);
  const int columns = static_cast<int>(std::ceil(std::sqrt(static_cast<double>(pooled.size()))));
  const int lines = (static_cast<int>(pooled.size()) + columns - 1) / columns;
  const CellSize cell = CellPixels(pooled.front(), pooled.size());
  const int title = Canvas::TextWidth(pooled.back().title);
  const int panel_width = kLeft + kRight + std::max(static_cast<int>(pooled.front().cols) * cell.width, title);
  const int panel_height =
      kTop + kBottom + std::max(static_cast<int>(pooled.front().rows) * cell.height, Canvas::TextWidth("query token"));
  Canvas canvas(columns * panel_width + kBarRoom, std::max(lines * panel_height, kTop + kMinBarHeight + kBottom));
  for (std::size_t i = 0; i < pooled.size(); ++i) {
    const int column = static_cast<int>(i) % columns;
    const int line = static_cast<int>(i) / columns;
    Panel(pooled[i], cell, range, &canvas).Draw(column * panel_width + kLeft, line * panel_height + kTop);
  }
  DrawColorBar(columns * panel_width, kTop, canvas.height() - kTop - kBottom, range, &canvas);
  return canvas;
}

}  // namespace attend::client
