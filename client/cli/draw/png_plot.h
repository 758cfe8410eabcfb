// Plots attention weights as a PNG picture: a panel per map, axes with token indices, one colour bar for all.
#ifndef ATTEND_CLIENT_CLI_DRAW_PNG_PLOT_H_
#define ATTEND_CLIENT_CLI_DRAW_PNG_PLOT_H_

#include <vector>

#include "absl/types/span.h"
#include "client/cli/draw/canvas.h"
#include "client/cli/draw/weight_map.h"

namespace attend::client {

// Draws up to 16 maps in a square grid. A weight is a rectangle of pixels, a square in a square map; a map of more than
// 768 queries or keys is averaged down. All panels share the colour bar, from the smallest to the largest weight drawn.
// REQUIRES: 1 to 16 maps.
Canvas PlotWeights(absl::Span<const WeightMap> maps);

inline constexpr int kMaxPanels = 16;

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_DRAW_PNG_PLOT_H_
