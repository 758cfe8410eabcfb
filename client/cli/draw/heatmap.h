// Draws attention weights as text.
#ifndef ATTEND_CLIENT_CLI_DRAW_HEATMAP_H_
#define ATTEND_CLIENT_CLI_DRAW_HEATMAP_H_

#include <string>

#include "client/cli/draw/terminal.h"
#include "client/cli/draw/weight_map.h"

namespace attend::client {

// A heatmap of `map` with axis labels and a scale, each line ended by a newline: queries downwards, keys across. Small
// maps show their numbers; large ones are averaged down to what fits into `terminal.columns`. With colour and UTF-8,
// half blocks give two rows to a line; without, characters stand for weights: " .:-=+*#%@" from the smallest to the
// largest. The last line is the scale.
std::string DrawHeatmap(const WeightMap& map, const Terminal& terminal);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_DRAW_HEATMAP_H_
