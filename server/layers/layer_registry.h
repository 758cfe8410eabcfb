// The named layers of a server: what LayerService changes and Attend looks up.
#ifndef ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_
#define ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "server/layers/layer.h"
#include "server/layers/name_table.h"

namespace attend::server {

// Knows no rule about who may change what, nor any limit: those are LayerStore's, which is the one that changes it.
//
// Thread-safe. Find is on the path of every request: one lock, one search.
class LayerRegistry {
 public:
  // Null when there is none. A request holds on to what it got.
  std::shared_ptr<const Layer> Find(std::string_view name) const { return layers_.Find(name); }

  // Adds `layer` under its own name, or puts it in the place of the one there.
  void Put(std::shared_ptr<const Layer> layer);

  // Requests that hold the layer go on. Nothing happens when there is none.
  void Remove(std::string_view name) { layers_.Remove(name); }

  // At most `most` layers whose names start with `prefix` and come behind `after`, in ascending order of their names'
  // bytes.
  std::vector<std::shared_ptr<const Layer>> Page(std::string_view prefix, std::string_view after,
                                                 std::size_t most) const {
    return layers_.Page(prefix, after, most);
  }

  std::size_t size() const { return layers_.size(); }

 private:
  NameTable<Layer> layers_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_
