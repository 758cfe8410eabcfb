// A layer's place in its model, as far as the prefix of its tensors tells it.
#ifndef ATTEND_FORMATS_LAYERS_LAYER_PLACE_H_
#define ATTEND_FORMATS_LAYERS_LAYER_PLACE_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace attend::formats {

struct LayerPlace {
  std::optional<std::int64_t> index;  // Of the layer: the first number.
  bool in_encoder = false;            // Of a model that has both.
  bool in_decoder = false;
  bool is_cross = false;          // Keys and values come from elsewhere.
  bool is_between_parts = false;  // Of a model of several: in what joins them.
};

// Pure.
LayerPlace PlaceOf(std::string_view prefix);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_LAYER_PLACE_H_
