#include "formats/hugging_face/by_layer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace attend::formats {

const nlohmann::json* EntryFor(ModelConfig& config, const LayerPlace& place, const char* key,
                               const nlohmann::json& list) {
  const bool all_alike =
      !list.empty() && std::all_of(list.begin(), list.end(), [&](const auto& entry) { return entry == list[0]; });
  if (!place.index && all_alike) return &list[0];
  const nlohmann::json* entry = nullptr;
  DecideByIndex(config, place, key, [&](std::int64_t index) {
    if (index < static_cast<std::int64_t>(list.size())) {
      entry = &list[static_cast<std::size_t>(index)];
    } else {
      config.Fail(key, "has fewer entries than the prefix's number");
    }
    return true;
  });
  return entry;
}

const nlohmann::json* ListAt(ModelConfig& config, const char* key) {
  const nlohmann::json* const list = config.Reads(key) ? config.Find(key) : nullptr;
  if (list == nullptr || list->is_array()) return list;
  config.Fail(key, "is not a list");
  return nullptr;
}

bool IsWordAt(ModelConfig& config, const LayerPlace& place, const char* key, const nlohmann::json& list,
              const char* word) {
  const nlohmann::json* const entry = EntryFor(config, place, key, list);
  return entry != nullptr && *entry == word;
}

bool HasRotaryBySmolLm(ModelConfig& config, const LayerPlace& place) {
  if (const auto* const list = ListAt(config, "no_rope_layers"); list != nullptr) {
    const nlohmann::json* const entry = EntryFor(config, place, "no_rope_layers", *list);
    return entry != nullptr && *entry == 1;
  }
  const std::int64_t interval = config.Integer({"no_rope_layer_interval"}).value_or(0);
  if (interval < 1) config.Fail("no_rope_layer_interval", "must be at least 1");
  return interval >= 1 && DecideByIndex(config, place, "no_rope_layer_interval",
                                        [&](std::int64_t i) { return (i + 1) % interval != 0; });
}

}  // namespace attend::formats
