#include "server/layers/layer_registry.h"

#include <string>
#include <utility>

namespace attend::server {

void LayerRegistry::Put(std::shared_ptr<const Layer> layer) {
  const std::string name = layer->description().name();
  layers_.Put(name, std::move(layer));
}

}  // namespace attend::server
