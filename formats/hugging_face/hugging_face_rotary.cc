#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/hugging_face/model_config.h"
#include "formats/hugging_face/rotary_parameters.h"

namespace attend::formats {
namespace {

// What transformers 5 takes for the layers with a window of an OLMo 3 in the files of transformers 4.
constexpr double kOlmo3Base = 500000;

// What the file says outside of the parameters of rotary embeddings.
double BaseBeside(ModelConfig& config, bool is_sliding) {
  if (is_sliding && !config.Has("rope_parameters")) {
    if (const auto base = config.Number({"rope_local_base_freq", "local_rope_theta"})) return *base;
  }
  if (is_sliding && config.Reads("rope_local_base_freq")) return 10000;
  if (const auto base = config.Number({"rotary_emb_base", "global_rope_theta", "rope_theta"})) {
    return config.Reads("rope_ratio") ? *base * config.Number({"rope_ratio"}).value_or(1) : *base;
  }
  return 10000;
}

std::optional<double> ShareBeside(ModelConfig& config) {
  return config.Number({"rotary_pct", "partial_rotary_factor"});
}

// Refuses what transformers 4 does not look for in `rope_scaling`, and 5 does, unless it is the same beside it.
void RefuseTwoPlaces(ModelConfig& config, RotaryParameters& source, bool is_sliding) {
  if (std::string_view(source.key) != "rope_scaling" || source.is_nested) return;
  constexpr const char* kWhy =
      "is in rope_scaling, where transformers 5 reads it, and not the same beside it, where 4 does. Write it into both";
  const auto base = source.values.Number({"rope_theta"}), share = source.values.Number({"partial_rotary_factor"});
  if (base && *base != BaseBeside(config, is_sliding)) config.Fail("rope_theta", kWhy);
  if (share && *share != ShareBeside(config).value_or(1)) config.Fail("partial_rotary_factor", kWhy);
}

// How many elements of a head are turned; 0: all.
std::int64_t TurnedDim(ModelConfig& config, ModelConfig& parameters, std::int64_t head_dim) {
  if (config.Reads("rotary_dim")) {
    const std::int64_t dim = config.Integer({"rotary_dim"}).value_or(0);
    if (dim < 1 || (head_dim > 0 && dim > head_dim)) {
      config.Fail("rotary_dim", absl::StrCat("is ", dim, "; it must be at least 1 and at most the size of a head"));
    }
    return dim;
  }
  std::optional<double> share = parameters.Number({"partial_rotary_factor"});
  if (!share) share = ShareBeside(config);
  if (!share || *share == 1) return 0;
  if (head_dim == 0 || !(*share > 0 && *share < 1)) {
    config.Fail("partial_rotary_factor", "is not a share of a known size of a head");
    return 0;
  }
  const auto dim = static_cast<std::int64_t>(static_cast<double>(head_dim) * *share);
  if (dim < 1) {
    config.Fail("partial_rotary_factor", absl::StrCat("is ", *share, ", which turns no element of a head of ", head_dim,
                                                      "; it must turn 2 or more"));
  }
  // Transformers turns one element more then, by the frequencies of the odd number.
  if (dim % 2 != 0 && !config.Reads("rope_ratio")) {
    config.Fail("partial_rotary_factor",
                absl::StrCat("turns ", dim, " elements of a head; odd numbers are not supported"));
  }
  return dim;
}

// Refuses what transformers 4, which turns all layers of such a model with one base, and 5 read differently.
void RefuseTwoBases(ModelConfig& config, const RotaryParameters& source, double base, bool is_sliding) {
  if (!config.HasTrait(kOneBase) || !config.status().ok()) return;
  if (config.Has("rope_parameters")) {
    if (!source.is_nested) config.Fail("rope_parameters", "must have an object for each kind of layer");
    return;
  }
  if (config.Has("rope_theta")) {
    config.Fail("rope_theta", "is read by transformers 4 and not by 5. Write global_rope_theta and local_rope_theta");
  }
  if (is_sliding && base != config.Number({"global_rope_theta"}).value_or(0)) {
    config.Fail(
        "local_rope_theta",
        "is not global_rope_theta, which transformers 4 takes for all layers; 5 does not. Write rope_parameters");
  }
}

}  // namespace

Setting<Rotary> RotaryOf(ModelConfig& config, std::int64_t head_dim, bool is_sliding, std::optional<double> base) {
  Rotary rotary;
  rotary.form = config.rules()->rotary;
  RotaryParameters source = FindRotaryParameters(config, is_sliding);
  RefuseTwoPlaces(config, source, is_sliding);
  const std::optional<double> within = source.values.Number({"rope_theta"});
  rotary.base = base ? *base : within ? *within : BaseBeside(config, is_sliding);
  RefuseTwoBases(config, source, rotary.base, is_sliding);
  rotary.dim = TurnedDim(config, source.values, head_dim);
  if (!config.status().ok()) return {};
  // Before transformers 5 the one `rope_scaling` of some models was that of the layers without a window.
  const bool is_of_full = config.HasTrait(kScalesWhereFull) && !config.Has("rope_parameters");
  const bool scales = !is_sliding || !is_of_full;
  const bool is_of_four = is_of_full || (config.HasTrait(kScalesWhereFull) && !within);
  if (is_sliding && is_of_four && !config.Reads("rope_local_base_freq") && rotary.base != kOlmo3Base) {
    config.Fail("rope_theta", absl::StrCat("is not ", kOlmo3Base,
                                           ", and for layers with a window transformers 4 takes "
                                           "it and transformers 5 does not. Write rope_parameters"));
  }
  if (scales) SetScaling(config, source, head_dim, rotary);
  config.Update(source.values.status());
  Setting<Rotary> setting;
  setting.Set(std::move(rotary),
              absl::StrCat(OfType(config), ", config.json: ", config.Has(source.key) ? source.key : "rope_theta"));
  return setting;
}

}  // namespace attend::formats
