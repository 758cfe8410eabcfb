// Plots attention weights as a picture: a panel per map, axes with tokens, one colour bar for all.
#ifndef ATTEND_CLIENT_DRAW_PLOT_H_
#define ATTEND_CLIENT_DRAW_PLOT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/draw/weight_map.h"

namespace attend::client {

inline constexpr int kMaxPanels = 16;

// The contents of a .png or .svg file, by the ending of `path`. Maps stand in a square grid and share the colour
// bar. Cells of a small map carry their numbers; cells of weight 0 are grey, and hatched where there is room. A map of
// more than 768 queries or keys is averaged down. REQUIRES: 1 to kMaxPanels maps of one shape; labels that fit them.
// Errors: as Picture::Finish.
absl::StatusOr<std::string> PlotWeights(const std::string& path, absl::Span<const WeightMap> maps,
                                        const DrawStyle& style);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_PLOT_H_
