// The named layers of a server: what LayerService changes and Attend looks up.
#ifndef ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_
#define ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_

#include <memory>
#include <string_view>

#include "server/layers/layer.h"

namespace attend::server {

// Thread-safe.
class LayerRegistry {
 public:
  // Null when there is none. A request holds on to what it got.
  std::shared_ptr<const Layer> Find(std::string_view name) const;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_
