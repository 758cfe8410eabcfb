#include <cstdint>
#include <optional>

#include "formats/hugging_face/by_layer.h"
#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_place.h"

namespace attend::formats {
namespace {

// GPT-Neo's [[["global", "local"], 12]], one after the other. Any other group is refused: it would count for the layers
// behind it.
nlohmann::json ExpandTypes(ModelConfig& config, const nlohmann::json& types) {
  constexpr std::int64_t kMost = 4096;
  nlohmann::json list = nlohmann::json::array();
  for (const auto& group : types) {
    const bool is_group =
        group.is_array() && group.size() == 2 && group[0].is_array() && group[1].is_number_integer() && group[1] >= 0;
    if (!is_group) RefuseEntry(config, "attention_types", group, "not a list of words with how often it comes");
    if (!is_group || group[0].empty()) continue;
    for (std::int64_t i = 0; i < group[1] && static_cast<std::int64_t>(list.size()) < kMost; ++i) {
      for (const auto& word : group[0]) list.push_back(word);
    }
  }
  return list;
}

// What `layer_types` says of this layer; nothing when the file has none.
std::optional<bool> IsSlidingByType(ModelConfig& config, const LayerPlace& place) {
  const nlohmann::json* const types = ListAt(config, "layer_types");
  if (types == nullptr) return std::nullopt;
  const nlohmann::json* const entry = EntryFor(config, place, "layer_types", *types);
  if (entry == nullptr || *entry == "full_attention") return false;
  if (*entry == "sliding_attention") return true;
  config.Fail("layer_types", "has an entry for this layer that is neither full_attention nor sliding_attention");
  return false;
}

// The code of some models follows `layer_types` whatever `use_sliding_window` says: refuses files in which they differ.
void RefuseContradiction(ModelConfig& config, const LayerPlace& place) {
  const WindowRule rule = config.rules()->window;
  if ((rule != WindowRule::kSmolLm && rule != WindowRule::kByTypes) || !config.Says("layer_types")) return;
  if (!IsSlidingByType(config, place).value_or(false)) return;
  config.Fail("use_sliding_window",
              "is false, but layer_types says that this layer has a window. Set the window in the "
              "layer's configuration");
}

// ModernBERT's decoder has half of ModernBERT's window, in tokens with the query's own.
void SetDecoderWindow(ModelConfig& config, Causality causal, LayerSettings& layer) {
  const std::int64_t window = config.Integer({"local_attention"}).value_or(0) / 2;
  if (window < 1) return config.Fail("local_attention", "must be at least 2 for a layer that slides");
  if (config.Has("sliding_window") && config.Integer({"sliding_window"}).value_or(-1) != window) {
    return config.Fail("sliding_window",
                       "is not half of local_attention, and versions of transformers take one or the other. Write half "
                       "of it");
  }
  if (causal == Causality::kNone) {
    return config.Fail("local_attention",
                       "is set in a model that is not causal; which keys its window has is not known. Set "
                       "sliding_window_left and sliding_window_right in the layer's configuration");
  }
  layer.window_left.Set(window - 1, config.Origin("local_attention"));
}

}  // namespace

bool IsSliding(ModelConfig& config, const LayerPlace& place) {
  const WindowRule rule = config.rules()->window;
  if (rule == WindowRule::kNever) return false;
  if (config.Reads("use_sliding_window") && !config.Boolean("use_sliding_window").value_or(false)) {
    RefuseContradiction(config, place);
    return false;
  }
  const bool has_size_elsewhere = rule == WindowRule::kModernBertDecoder;
  if (!has_size_elsewhere && config.Reads("sliding_window") && config.Find("sliding_window") == nullptr) return false;
  if (const auto by_type = IsSlidingByType(config, place)) return *by_type;
  switch (rule) {
    case WindowRule::kNever:
    case WindowRule::kByTypes: return false;  // The file has no list, which is an error already.
    case WindowRule::kAll: return true;
    case WindowRule::kLastLayers: {
      const std::int64_t first = config.Integer({"max_window_layers"}).value_or(0);
      return DecideByIndex(config, place, "max_window_layers", [&](std::int64_t i) { return i >= first; });
    }
    case WindowRule::kEven:
      return DecideByIndex(config, place, "sliding_window", [](std::int64_t i) { return i % 2 == 0; });
    case WindowRule::kPattern: {
      const std::int64_t period = config.Integer({"sliding_window_pattern"}).value_or(0);
      if (period < 1) config.Fail("sliding_window_pattern", "must be at least 1");
      return period >= 1 &&
             DecideByIndex(config, place, "sliding_window", [&](std::int64_t i) { return (i + 1) % period != 0; });
    }
    case WindowRule::kSmolLm: return !HasRotaryBySmolLm(config, place);
    case WindowRule::kGptNeo: {
      if (const auto* const kinds = ListAt(config, "attention_layers"); kinds != nullptr) {
        return IsWordAt(config, place, "attention_layers", *kinds, "local", "global");
      }
      const nlohmann::json* const types = ListAt(config, "attention_types");
      return types != nullptr &&
             IsWordAt(config, place, "attention_types", ExpandTypes(config, *types), "local", "global");
    }
    case WindowRule::kModernBertDecoder:
    case WindowRule::kModernBert: {
      const std::int64_t period = config.Integer({"global_attn_every_n_layers"}).value_or(0);
      if (period < 1) config.Fail("global_attn_every_n_layers", "must be at least 1");
      return period >= 1 && DecideByIndex(config, place, "global_attn_every_n_layers",
                                          [&](std::int64_t i) { return i % period != 0; });
    }
  }
  return false;
}

// A window of W tokens is the query's own and the W - 1 before it.
void SetWindow(ModelConfig& config, Causality causal, LayerSettings& layer) {
  const auto both_sides = [&](std::int64_t left, std::int64_t right, const char* key) {
    layer.window_left.Set(left, config.Origin(key));
    layer.window_right.Set(right, config.Origin(key));
  };
  if (config.rules()->window == WindowRule::kModernBertDecoder) return SetDecoderWindow(config, causal, layer);
  if (config.rules()->window == WindowRule::kModernBert) {
    const std::int64_t half = config.Integer({"local_attention"}).value_or(0) / 2;
    return both_sides(half, half, "local_attention");
  }
  const char* const key = config.rules()->window == WindowRule::kGptNeo ? "window_size" : "sliding_window";
  const std::int64_t window = config.Integer({key}).value_or(0);
  if (window < 1) return config.Fail(key, "must be at least 1 for a layer that slides");
  if (causal != Causality::kNone) {
    layer.window_left.Set(window - 1, config.Origin(key));
  } else if (config.HasTrait(kHalvesWindow)) {
    both_sides(window / 2, window / 2, key);
  } else if (config.HasTrait(kUnevenWindow)) {
    both_sides((window - 1) / 2, window / 2, key);
  } else if (config.HasTrait(kWholeWindow)) {
    both_sides(window, window, key);
  } else {
    config.Fail(key,
                "is set in a model that is not causal; which keys its window has is not known. Set "
                "sliding_window_left and sliding_window_right in the layer's configuration");
  }
}

}  // namespace attend::formats
