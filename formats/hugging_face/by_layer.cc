#include "formats/hugging_face/by_layer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace attend::formats {

void RefuseEntry(ModelConfig& config, const char* key, const nlohmann::json& entry, const std::string& why) {
  constexpr std::size_t kMostShown = 64;
  config.Fail(key, absl::StrCat("has the entry ", entry.dump(-1, ' ', /*ensure_ascii=*/true).substr(0, kMostShown),
                                ", which is ", why));
}

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
              const char* word, const char* other) {
  const nlohmann::json* const entry = EntryFor(config, place, key, list);
  if (entry == nullptr || *entry == word) return entry != nullptr;
  if (*entry != other) RefuseEntry(config, key, *entry, absl::StrCat("neither ", word, " nor ", other));
  return false;
}

bool HasRotaryBySmolLm(ModelConfig& config, const LayerPlace& place) {
  if (const auto* const list = ListAt(config, "no_rope_layers"); list != nullptr) {
    const nlohmann::json* const entry = EntryFor(config, place, "no_rope_layers", *list);
    if (entry == nullptr) return false;
    if (entry->is_boolean()) return entry->get<bool>();
    const std::int64_t number = entry->is_number_integer() ? entry->get<std::int64_t>() : -1;
    if (number != 0 && number != 1) RefuseEntry(config, "no_rope_layers", *entry, "neither 0 nor 1");
    return number == 1;
  }
  const std::int64_t interval = config.Integer({"no_rope_layer_interval"}).value_or(0);
  if (interval < 1) config.Fail("no_rope_layer_interval", "must be at least 1");
  return interval >= 1 && DecideByIndex(config, place, "no_rope_layer_interval",
                                        [&](std::int64_t i) { return (i + 1) % interval != 0; });
}

}  // namespace attend::formats
