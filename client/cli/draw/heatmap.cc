#include "client/cli/draw/heatmap.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/draw/color_scale.h"

namespace attend::client {
namespace {

constexpr int kMargin = 8;  // Columns left of the map: the query's index and a rule.
constexpr int kNumberWidth = 6;
constexpr std::int64_t kMaxNumberedRows = 24;
constexpr std::int64_t kMaxCells = 96;   // A larger drawing says no more.
constexpr std::int64_t kLabelEvery = 4;  // Lines between two labels of the query axis.
constexpr int kScaleCells = 20;
constexpr char kShades[] = " .:-=+*#%@";
constexpr char kReset[] = "\x1b[0m";

// Draws one map with one scale.
class Painter {
 public:
  Painter(const WeightMap& map, const Terminal& terminal)
      : map_(map), terminal_(terminal), range_(RangeOf({map})), rule_(terminal.utf8 ? "│" : "|") {}

  std::string Draw() {
    absl::StrAppend(&out_, map_.title, "  ", map_.num_queries, " queries (down) x ", map_.num_keys, " keys (across)\n");
    const bool numbered = map_.cols * kNumberWidth + kMargin <= terminal_.columns && map_.rows <= kMaxNumberedRows;
    if (numbered) {
      DrawNumbers();
    } else {
      Fit();
      HasColor() && terminal_.utf8 ? DrawHalfBlocks() : DrawLines();
    }
    DrawScale();
    return std::move(out_);
  }

 private:
  bool HasColor() const { return terminal_.color != ColorDepth::kNone; }
  float Fraction(float weight) const { return range_.Fraction(weight); }

  // Averages the map down to the terminal's width, in the map's own proportions.
  void Fit() {
    const std::int64_t width = std::min<std::int64_t>(terminal_.columns - kMargin, kMaxCells);
    const double shrink = std::max<double>({1.0, static_cast<double>(map_.cols) / static_cast<double>(width),
                                            static_cast<double>(map_.rows) / static_cast<double>(kMaxCells)});
    const auto cells = [shrink](std::int64_t count) {
      return std::max<std::int64_t>(1, std::llround(static_cast<double>(count) / shrink));
    };
    // A character is about twice as high as it is wide; half blocks are square.
    const bool halves = HasColor() && terminal_.utf8;
    const std::int64_t rows = halves ? cells(map_.rows) : std::max<std::int64_t>(1, cells(map_.rows) / 2);
    map_ = Pool(map_, std::min(rows, map_.rows), std::min(cells(map_.cols), width));
    range_ = RangeOf({map_});
  }

  std::string Escape(const Rgb& color, bool background) const {
    if (terminal_.color == ColorDepth::k256) {
      return absl::StrFormat("\x1b[%d;5;%dm", background ? 48 : 38, PaletteIndex(color));
    }
    return absl::StrFormat("\x1b[%d;2;%d;%d;%dm", background ? 48 : 38, color.red, color.green, color.blue);
  }

  char Shade(float fraction) const {
    if (std::isnan(fraction)) return '?';
    constexpr int kLast = sizeof(kShades) - 2;
    return kShades[std::clamp(static_cast<int>(std::ceil(fraction * kLast)), 0, kLast)];
  }

  // The left margin of a line whose first row is `row`.
  void Margin(std::int64_t row, bool labelled) {
    const std::string label = labelled ? absl::StrCat(row * map_.num_queries / map_.rows) : "";
    absl::StrAppendFormat(&out_, "%*s %s", kMargin - 2, label, rule_);
  }

  void DrawNumbers() {
    for (std::int64_t row = 0; row < map_.rows; ++row) {
      Margin(row, true);
      for (std::int64_t col = 0; col < map_.cols; ++col) DrawNumber(map_.at(row, col));
      absl::StrAppend(&out_, HasColor() ? kReset : "", "\n");
    }
    DrawKeyAxis(kNumberWidth);
  }

  void DrawNumber(float weight) {
    const float fraction = Fraction(weight);
    if (HasColor()) {
      const Rgb color = ScaleColor(fraction);
      absl::StrAppend(&out_, Escape(color, true), Escape(ContrastingText(color), false),
                      absl::StrFormat(" %.2f ", weight));
    } else {
      absl::StrAppend(&out_, absl::StrFormat("%.2f", weight), std::string(1, Shade(fraction)), " ");
    }
  }

  void DrawHalfBlocks() {
    for (std::int64_t row = 0; row < map_.rows; row += 2) {
      Margin(row, row / 2 % kLabelEvery == 0);
      for (std::int64_t col = 0; col < map_.cols; ++col) {
        absl::StrAppend(&out_, Escape(ScaleColor(Fraction(map_.at(row, col))), false));
        if (row + 1 < map_.rows) absl::StrAppend(&out_, Escape(ScaleColor(Fraction(map_.at(row + 1, col))), true));
        absl::StrAppend(&out_, "▀");
      }
      absl::StrAppend(&out_, kReset, "\n");
    }
    DrawKeyAxis(1);
  }

  void DrawLines() {
    for (std::int64_t row = 0; row < map_.rows; ++row) {
      Margin(row, row % kLabelEvery == 0);
      for (std::int64_t col = 0; col < map_.cols; ++col) DrawCell(Fraction(map_.at(row, col)));
      absl::StrAppend(&out_, HasColor() ? kReset : "", "\n");
    }
    DrawKeyAxis(1);
  }

  void DrawCell(float fraction) {
    if (HasColor()) {
      absl::StrAppend(&out_, Escape(ScaleColor(fraction), true), " ");
    } else {
      out_.push_back(Shade(fraction));
    }
  }

  // Indices of keys below the map, as many as do not touch each other.
  void DrawKeyAxis(int cell_width) {
    std::string axis(kMargin, ' ');
    for (std::int64_t col = 0; col < map_.cols; ++col) {
      const std::string label = absl::StrCat(col * map_.num_keys / map_.cols);
      const std::size_t at = kMargin + static_cast<std::size_t>(col * cell_width + (cell_width > 1 ? 2 : 0));
      const bool wanted = cell_width > 1 || col % 16 == 0;
      if (!wanted || at < axis.size() + (col > 0 ? 1 : 0)) continue;
      axis.resize(at, ' ');
      axis += label;
    }
    absl::StrAppend(&out_, axis, "\n");
  }

  void DrawScale() {
    absl::StrAppend(&out_, absl::StrFormat("%*.3g ", kMargin - 1, range_.min));
    for (int i = 0; i < kScaleCells; ++i) DrawCell(static_cast<float>(i) / (kScaleCells - 1));
    absl::StrAppend(&out_, HasColor() ? kReset : "", absl::StrFormat(" %.3g", range_.max));
    const bool averaged = map_.rows < map_.num_queries || map_.cols < map_.num_keys;
    absl::StrAppend(&out_, averaged ? "\n        (each cell is a mean)\n" : "\n");
  }

  WeightMap map_;
  const Terminal& terminal_;
  WeightRange range_;
  const char* rule_;
  std::string out_;
};

}  // namespace

std::string DrawHeatmap(const WeightMap& map, const Terminal& terminal) { return Painter(map, terminal).Draw(); }

}  // namespace attend::client
