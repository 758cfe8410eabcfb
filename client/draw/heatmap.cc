#include "client/draw/heatmap.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/draw/color_scale.h"

namespace attend::client {
namespace {

constexpr std::size_t kMargin = 8;  // Columns left of the map: the query and a rule. Labels may need more.
constexpr std::size_t kMaxLabel = 16;
constexpr std::size_t kNumberWidth = 6;
constexpr std::int64_t kMaxNumberedRows = 24;
constexpr std::int64_t kMaxCells = 96;   // A larger drawing says no more.
constexpr std::int64_t kLabelEvery = 4;  // Lines between two labels of the query axis.
constexpr int kScaleCells = 20;
constexpr char kShades[] = ".:-=+*#%@";
constexpr char kReset[] = "\x1b[0m";

// Draws one map with one scale.
class Painter {
 public:
  Painter(const WeightMap& map, const DrawStyle& style, const Terminal& terminal)
      : map_(map),
        style_(style),
        terminal_(terminal),
        scale_({map}, style.log_scale),
        rule_(terminal.utf8 ? "│" : "|") {
    for (const std::string& label : style.query_labels) {
      margin_ = std::max(margin_, CountCharacters(Shortened(label, kMaxLabel)) + 2);
    }
  }

  std::string Draw() {
    absl::StrAppend(&out_, map_.title, "  ", map_.num_queries, " queries (down) x ", map_.num_keys, " keys (across)\n");
    if (map_.cols * kNumberWidth + margin_ <= static_cast<std::size_t>(terminal_.columns) &&
        map_.rows <= kMaxNumberedRows) {
      DrawNumbers();
    } else {
      Fit();
      HasHalves() ? DrawHalfBlocks() : DrawLines();
    }
    DrawScale();
    return std::move(out_);
  }

 private:
  bool HasColor() const { return terminal_.color != ColorDepth::kNone; }
  bool HasHalves() const { return HasColor() && terminal_.utf8; }

  // Averages the map down to the terminal's width, in the map's own proportions.
  void Fit() {
    const std::int64_t width =
        std::clamp<std::int64_t>(terminal_.columns - static_cast<std::int64_t>(margin_), 1, kMaxCells);
    const double shrink = std::max<double>({1.0, static_cast<double>(map_.cols) / static_cast<double>(width),
                                            static_cast<double>(map_.rows) / static_cast<double>(kMaxCells)});
    const auto cells = [shrink](std::int64_t count) {
      return std::max<std::int64_t>(1, std::llround(static_cast<double>(count) / shrink));
    };
    // A character is about twice as high as it is wide; half blocks are square.
    const std::int64_t rows = HasHalves() ? cells(map_.rows) : std::max<std::int64_t>(1, cells(map_.rows) / 2);
    map_ = Pool(map_, std::min(rows, map_.rows), std::min(cells(map_.cols), width));
    scale_ = ColorScale({map_}, style_.log_scale);
  }

  std::string Escape(const Rgb& color, bool background) const {
    if (terminal_.color == ColorDepth::k256) {
      return absl::StrFormat("\x1b[%d;5;%dm", background ? 48 : 38, PaletteIndex(color));
    }
    return absl::StrFormat("\x1b[%d;2;%d;%d;%dm", background ? 48 : 38, color.red, color.green, color.blue);
  }

  // REQUIRES: a fraction in [0, 1], or NaN.
  static char Shade(float fraction) {
    if (std::isnan(fraction)) return '?';
    constexpr int kLast = sizeof(kShades) - 2;
    return kShades[static_cast<int>(std::ceil(fraction * kLast))];
  }

  char ShadeOf(float weight) const { return weight == 0 ? ' ' : Shade(scale_.Fraction(weight)); }

  // The left margin of a line whose first row is `row`.
  void Margin(std::int64_t row, bool labelled) {
    const std::int64_t query = row * map_.num_queries / map_.rows;
    std::string label = style_.query_labels.empty()
                            ? absl::StrCat(query)
                            : Shortened(style_.query_labels[static_cast<std::size_t>(query)], kMaxLabel);
    if (!labelled) label.clear();
    absl::StrAppend(&out_, std::string(margin_ - 2 - CountCharacters(label), ' '), label, " ", rule_);
  }

  void EndLine() { absl::StrAppend(&out_, HasColor() ? kReset : "", "\n"); }

  void DrawNumbers() {
    for (std::int64_t row = 0; row < map_.rows; ++row) {
      Margin(row, true);
      for (std::int64_t col = 0; col < map_.cols; ++col) DrawNumber(map_.at(row, col));
      EndLine();
    }
    DrawKeyAxis(kNumberWidth);
  }

  void DrawNumber(float weight) {
    const std::string number = weight == 0 ? "  - " : absl::StrFormat("%.2f", weight);
    if (HasColor()) {
      const Rgb color = scale_.Color(weight);
      absl::StrAppend(&out_, Escape(color, true), Escape(ContrastingText(color), false), " ", number, " ");
    } else {
      absl::StrAppend(&out_, number, std::string(1, ShadeOf(weight)), " ");
    }
  }

  void DrawHalfBlocks() {
    for (std::int64_t row = 0; row < map_.rows; row += 2) {
      Margin(row, row / 2 % kLabelEvery == 0);
      for (std::int64_t col = 0; col < map_.cols; ++col) {
        absl::StrAppend(&out_, Escape(scale_.Color(map_.at(row, col)), false));
        if (row + 1 < map_.rows) absl::StrAppend(&out_, Escape(scale_.Color(map_.at(row + 1, col)), true));
        absl::StrAppend(&out_, "▀");
      }
      EndLine();
    }
    DrawKeyAxis(1);
  }

  void DrawLines() {
    for (std::int64_t row = 0; row < map_.rows; ++row) {
      Margin(row, row % kLabelEvery == 0);
      for (std::int64_t col = 0; col < map_.cols; ++col) {
        const float weight = map_.at(row, col);
        absl::StrAppend(&out_, HasColor() ? Escape(scale_.Color(weight), true) + " " : std::string(1, ShadeOf(weight)));
      }
      EndLine();
    }
    DrawKeyAxis(1);
  }

  // Numbers or labels of keys below the map, as many as do not touch each other.
  void DrawKeyAxis(std::size_t cell_width) {
    std::string axis(margin_, ' ');
    std::size_t end = 0;  // Of what is written, in characters.
    for (std::int64_t col = 0; col < map_.cols; ++col) {
      const bool is_numbered = cell_width > 1;
      const std::size_t key = static_cast<std::size_t>(col * map_.num_keys / map_.cols);
      const bool has_label = is_numbered && !style_.key_labels.empty();
      const std::string label = has_label ? Shortened(style_.key_labels[key], kNumberWidth - 1) : absl::StrCat(key);
      const std::size_t at = margin_ + static_cast<std::size_t>(col) * cell_width + (is_numbered && !has_label ? 2 : 0);
      if ((!is_numbered && col % 16 != 0) || (col > 0 && at < end + 1)) continue;
      if (end == 0) end = margin_;
      axis += std::string(at - end, ' ') + label;
      end = at + CountCharacters(label);
    }
    absl::StrAppend(&out_, axis, "\n");
  }

  void DrawScale() {
    absl::StrAppend(&out_, absl::StrFormat("%*.3g ", static_cast<int>(margin_) - 1, scale_.min()));
    for (int i = 0; i < kScaleCells; ++i) {
      const float fraction = static_cast<float>(i) / (kScaleCells - 1);
      absl::StrAppend(&out_,
                      HasColor() ? Escape(ColorScale::ColorAt(fraction), true) + " " : std::string(1, Shade(fraction)));
    }
    absl::StrAppend(&out_, HasColor() ? kReset : "", absl::StrFormat(" %.3g", scale_.max()));
    if (scale_.is_log()) absl::StrAppend(&out_, " (log scale)");
    const bool averaged = map_.rows < map_.num_queries || map_.cols < map_.num_keys;
    absl::StrAppend(&out_, averaged ? "\n        (each cell is a mean)\n" : "\n");
  }

  WeightMap map_;
  const DrawStyle& style_;
  const Terminal& terminal_;
  ColorScale scale_;
  const char* rule_;
  std::size_t margin_ = kMargin;
  std::string out_;
};

}  // namespace

std::string DrawHeatmap(const WeightMap& map, const DrawStyle& style, const Terminal& terminal) {
  return Painter(map, style, terminal).Draw();
}

}  // namespace attend::client
