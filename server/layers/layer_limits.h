// How many layers a server keeps, and how large.
#ifndef ATTEND_SERVER_LAYERS_LAYER_LIMITS_H_
#define ATTEND_SERVER_LAYERS_LAYER_LIMITS_H_

#include <cstdint>

namespace attend::server {

// Each is set by the flag of the same name and reported by GetServerInfo. Layers of the server's own configuration
// count among the layers and their bytes, but are loaded whatever they take.
struct LayerLimits {
  int max_layers = 256;
  std::int64_t max_layer_bytes = std::int64_t{2} << 30;   // Of one upload, or of the weights that `init` makes.
  std::int64_t max_layers_bytes = std::int64_t{4} << 30;  // Memory of all layers together.
  int max_uploads = 8;                                    // Under way at a time.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_LIMITS_H_
