#include "client/draw/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/draw/color_scale.h"
#include "client/draw/picture.h"

namespace attend::client {
namespace {

// Sizes are in points.
constexpr Rgb kInk = {38, 38, 46};
constexpr Rgb kHatch = {198, 198, 208};
constexpr std::int64_t kMaxCells = 768;           // Of one panel, along each axis.
constexpr std::int64_t kMaxSeparateCells = 1024;  // Of one panel; more of them are drawn as one image.
constexpr std::size_t kMaxLabel = 20;             // Characters.
constexpr double kTick = 4;
constexpr double kGap = 5;
constexpr double kLine = 14;                 // Room for a line of text.
constexpr std::int64_t kMaxSpacedRows = 40;  // More numbers at an axis stand further apart.
constexpr double kMinNumberWidth = 28;
constexpr double kMinHatch = 10;
constexpr double kBarWidth = 14;
constexpr double kPi = 3.14159265358979323846;

// One side of a panel: its tokens and where they stand.
class Axis {
 public:
  Axis(std::int64_t tokens, double length, const std::vector<std::string>& labels)
      : tokens_(tokens), length_(length), labels_(labels) {}

  double length() const { return length_; }
  double per_token() const { return length_ / static_cast<double>(tokens_); }
  double Middle(std::int64_t token) const { return (static_cast<double>(token) + 0.5) * per_token(); }
  std::string Label(std::int64_t token) const {
    return labels_.empty() ? absl::StrCat(token) : Shortened(labels_[static_cast<std::size_t>(token)], kMaxLabel);
  }

  // The tokens to label, so that labels which need `room` along the axis do not touch: every one, or every 2nd, 5th,
  // 10th, 20th, ...
  std::vector<std::int64_t> Labelled(double room) const {
    std::int64_t step = 1;
    for (int i = 0; static_cast<double>(step) * per_token() < room; ++i) step = i % 3 == 1 ? step / 2 * 5 : step * 2;
    std::vector<std::int64_t> labelled;
    for (std::int64_t token = 0; token < tokens_; token += step) labelled.push_back(token);
    return labelled;
  }

  double WidestLabel(Picture* picture) const {
    double widest = 0;
    for (const std::int64_t token : Labelled(kLine)) widest = std::max(widest, picture->TextWidth(Label(token)));
    return widest;
  }

 private:
  std::int64_t tokens_;
  double length_;
  const std::vector<std::string>& labels_;
};

// What all panels of a plot have in common.
struct Layout {
  Layout(const WeightMap& map, std::size_t panels, const DrawStyle& style, Picture* picture)
      : columns(static_cast<int>(std::ceil(std::sqrt(static_cast<double>(panels))))),
        lines((static_cast<int>(panels) + columns - 1) / columns),
        keys(map.num_keys, Length(map.cols, panels), style.key_labels),
        queries(map.num_queries, Length(map.rows, panels), style.query_labels),
        left(kTick + 2 * kGap + queries.WidestLabel(picture) + kLine / 2),
        key_label(keys.WidestLabel(picture)),
        query_room(map.rows > kMaxSpacedRows && style.query_labels.empty() ? 2 * kLine : kLine),
        slanted(!style.key_labels.empty() && key_label + kGap > keys.per_token()) {}

  // So that a map's side comes near 480 points (220 when there are many) in whole points a cell: cells of a square map
  // are square, and a map of a few rows is still something to see.
  static double Length(std::int64_t cells, std::size_t panels) {
    const std::int64_t wanted = panels == 1 ? 480 : 220;
    return static_cast<double>(cells * std::clamp<std::int64_t>(wanted / cells, 1, 64));
  }

  // Room for the labels of the keys.
  double below() const { return kTick + kGap + (slanted ? key_label * 0.75 + kLine : kLine); }

  int columns;
  int lines;
  Axis keys;
  Axis queries;
  double left;        // Room for the labels of the queries.
  double key_label;   // The widest.
  double query_room;  // Of a label.
  bool slanted;       // Labels of the keys.
};

// Draws one panel, with the top left corner of the map itself at (x, y).
class Panel {
 public:
  Panel(const WeightMap& map, const Layout& layout, const ColorScale& scale, double x, double y, Picture* picture)
      : map_(map), layout_(layout), scale_(scale), x_(x), y_(y), picture_(*picture) {}

  void Draw() {
    if (map_.rows * map_.cols > kMaxSeparateCells) {
      DrawImage();
    } else {
      DrawCells();
    }
    picture_.Frame({x_, y_, layout_.keys.length(), layout_.queries.length()}, kInk);
    picture_.Text(x_, y_ - kLine, map_.title, {.size = 12, .bold = true});
    DrawKeys();
    DrawQueries();
  }

 private:
  void DrawImage() {
    std::vector<Rgb> colors;
    for (const float cell : map_.cells) colors.push_back(scale_.Color(cell));
    picture_.Raster({x_, y_, layout_.keys.length(), layout_.queries.length()}, colors, static_cast<int>(map_.rows),
                    static_cast<int>(map_.cols));
  }

  void DrawCells() {
    const double width = layout_.keys.per_token();
    const double height = layout_.queries.per_token();
    for (std::int64_t row = 0; row < map_.rows; ++row) {
      for (std::int64_t col = 0; col < map_.cols; ++col) {
        DrawCell({x_ + static_cast<double>(col) * width, y_ + static_cast<double>(row) * height, width, height},
                 map_.at(row, col));
      }
    }
  }

  void DrawCell(const Box& box, float weight) {
    const Rgb color = scale_.Color(weight);
    picture_.Fill(box, color);
    if (weight == 0) {
      if (std::min(box.width, box.height) >= kMinHatch) picture_.Hatch(box, kHatch);
    } else if (box.width >= kMinNumberWidth && box.height >= kLine && !std::isnan(weight)) {
      const std::string number = weight < 0.005F ? absl::StrFormat("%.0e", weight) : absl::StrFormat("%.2f", weight);
      picture_.Text(box.x + box.width / 2, box.y + box.height / 2, number,
                    {.size = std::min(13.0, box.width * 0.29), .color = ContrastingText(color), .align = 0.5});
    }
  }

  void DrawKeys() {
    const double y = y_ + layout_.queries.length();
    for (const std::int64_t token : layout_.keys.Labelled(layout_.slanted ? kLine : layout_.key_label + 2 * kGap)) {
      const double x = x_ + layout_.keys.Middle(token);
      picture_.Line(x, y + 0.5, x, y + kTick, kInk);
      if (layout_.slanted) {
        picture_.Text(x + 2, y + kTick + kGap, layout_.keys.Label(token), {.align = 1, .angle = -kPi / 4});
      } else {
        picture_.Text(x, y + kTick + kGap + 3, layout_.keys.Label(token), {.align = 0.5});
      }
    }
    picture_.Text(x_ + layout_.keys.length() / 2, y + layout_.below() + kGap, "key token", {.size = 12, .align = 0.5});
  }

  void DrawQueries() {
    for (const std::int64_t token : layout_.queries.Labelled(layout_.query_room)) {
      const double y = y_ + layout_.queries.Middle(token);
      picture_.Line(x_ - kTick, y, x_ - 0.5, y, kInk);
      picture_.Text(x_ - kTick - kGap, y, layout_.queries.Label(token), {.align = 1});
    }
    picture_.Text(x_ - layout_.left, y_ + layout_.queries.length() / 2, "query token",
                  {.size = 12, .align = 0.5, .angle = -kPi / 2});
  }

  const WeightMap& map_;
  const Layout& layout_;
  const ColorScale& scale_;
  double x_;
  double y_;
  Picture& picture_;
};

// The colour bar, `bar`, and below it what the other colours mean.
void DrawLegend(const Box& bar, const ColorScale& scale, bool is_mean, Picture* picture) {
  constexpr int kSteps = 256;
  std::vector<Rgb> colors(kSteps);
  for (int i = 0; i < kSteps; ++i) colors[i] = ColorScale::ColorAt(1 - static_cast<float>(i) / (kSteps - 1));
  picture->Raster(bar, colors, kSteps, 1);
  picture->Frame(bar, kInk);
  picture->Text(bar.x, bar.y - kLine, scale.is_log() ? "weight (log scale)" : "weight", {.size = 12});
  const double text = bar.x + bar.width + kTick + kGap;
  for (const Tick& tick : scale.Ticks(5)) {
    const double at = bar.y + (1 - tick.fraction) * bar.height;
    picture->Line(bar.x + bar.width + 0.5, at, bar.x + bar.width + kTick, at, kInk);
    picture->Text(text, at, tick.label);
  }
  Box box{bar.x, bar.y + bar.height + kLine, bar.width, bar.width};
  const auto add = [&](const Rgb& color, const std::string& meaning) {
    picture->Fill(box, color);
    picture->Frame(box, kInk);
    picture->Text(text, box.y + box.height / 2, meaning);
    box.y += box.height + kGap;
  };
  if (scale.has_zero()) add(kZeroColor, "0 (masked)");
  if (scale.has_nan()) add(kNanColor, "NaN");
  if (is_mean) picture->Text(bar.x, box.y + kGap, "cells are means");
}

}  // namespace

absl::StatusOr<std::string> PlotWeights(const std::string& path, absl::Span<const WeightMap> maps,
                                        const DrawStyle& style) {
  std::vector<WeightMap> pooled;
  for (const WeightMap& map : maps) pooled.push_back(Pool(map, kMaxCells, kMaxCells));
  const ColorScale scale(pooled, style.log_scale);
  Picture picture(style.font);
  const WeightMap& first = pooled.front();
  const Layout layout(first, pooled.size(), style, &picture);
  const double title = picture.TextWidth(pooled.back().title, {.size = 12, .bold = true});
  const double width = layout.left + std::max(layout.keys.length(), title) + 2 * kLine;
  const double height = layout.queries.length() + layout.below() + 4 * kLine;
  for (std::size_t i = 0; i < pooled.size(); ++i) {
    const int column = static_cast<int>(i) % layout.columns;
    const int line = static_cast<int>(i) / layout.columns;
    Panel(pooled[i], layout, scale, column * width, line * height, &picture).Draw();
  }
  const double bar_height = std::clamp((layout.lines - 1) * height + layout.queries.length(), 120.0, 480.0);
  const bool is_mean = first.rows < first.num_queries || first.cols < first.num_keys;
  DrawLegend({layout.columns * width - layout.left, 0, kBarWidth, bar_height}, scale, is_mean, &picture);
  return picture.Finish(path);
}

}  // namespace attend::client
