// What a config.json says of one layer of many, by the layer's index: entries of lists, and layers at intervals. Each
// function sets the status of the configuration when the prefix has no number that says which layer it is, or the file
// says nothing of it.
#ifndef ATTEND_FORMATS_HUGGING_FACE_BY_LAYER_H_
#define ATTEND_FORMATS_HUGGING_FACE_BY_LAYER_H_

#include <nlohmann/json.hpp>
#include <string>

#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_place.h"

namespace attend::formats {

// Decides by the layer's index something that differs between layers.
template <typename Decide>
bool DecideByIndex(ModelConfig& config, const LayerPlace& place, const char* key, const Decide& decide) {
  if (place.index) return decide(*place.index);
  config.Fail(key, "differs between layers, and the prefix has no number that says which one this is");
  return false;
}

// The list at a key that the rules say is read; null when there is none, with a status when it is something else.
const nlohmann::json* ListAt(ModelConfig& config, const char* key);

// The entry of a list with one for each layer, or the one that all entries are; null with a status when there is none.
const nlohmann::json* EntryFor(ModelConfig& config, const LayerPlace& place, const char* key,
                               const nlohmann::json& list);

// Refuses an entry of the list at `key`: `why` goes on after "which is".
void RefuseEntry(ModelConfig& config, const char* key, const nlohmann::json& entry, const std::string& why);

// Whether the layer's entry of `list` is `word`; anything but it and `other` is refused.
bool IsWordAt(ModelConfig& config, const LayerPlace& place, const char* key, const nlohmann::json& list,
              const char* word, const char* other);

// SmolLM3's `no_rope_layers` has 1 for layers that have a rotary embedding, and 0 for others; true and false are the
// same.
bool HasRotaryBySmolLm(ModelConfig& config, const LayerPlace& place);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_BY_LAYER_H_
