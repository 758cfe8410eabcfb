#include "tests/bench/core/onednn_projection.h"

namespace attend::bench {

std::vector<OnednnWay> OnednnWays(const Projection&) { return {}; }

}  // namespace attend::bench
