#include "formats/hugging_face/model_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attend::formats {
namespace {

// What transformers 5 takes for the layers with a window of an OLMo 3 in the files of transformers 4.
constexpr double kOlmo3Base = 500000;

// Where the parameters of rotary embeddings are: a dictionary of their own since transformers 5, one for each kind of
// layer where these differ; before that, keys of the model and `rope_scaling`.
struct Source {
  ModelConfig parameters;
  const char* key;         // Of `parameters` in the file.
  bool truncates = true;   // Of yarn: transformers looks for it outside of the parameters of one kind.
  bool is_nested = false;  // Whether `parameters` are those of one kind of layer.
};

Source FindSource(ModelConfig& config, bool is_sliding) {
  const char* const key =
      config.Has("rope_parameters") && config.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  ModelConfig parameters = config.Object(key);
  const char* const kind = is_sliding ? "sliding_attention" : "full_attention";
  const bool is_nested = parameters.Has("full_attention") || parameters.Has("sliding_attention");
  const bool truncates = parameters.Boolean("truncate").value_or(true);
  config.Update(parameters.status());
  return {is_nested ? parameters.Object(kind) : parameters, key, truncates, is_nested};
}

std::string TypeOf(ModelConfig& parameters) {
  std::string type = parameters.Text("rope_type");
  if (type.empty()) type = parameters.Text("type");
  // Of three positions, for images; a text's are all the same, and so is the embedding.
  return type == "mrope" ? "default" : type;
}

// The number of tokens that the model was made for, before its scaling. 0 with a status when the file does not say it,
// or when transformers 4 and 5 read different numbers from it.
std::int64_t OriginalLength(ModelConfig& config, Source& source, const std::string& type) {
  constexpr const char* kKey = "original_max_position_embeddings";
  const auto beside = config.Integer({kKey}), within = source.parameters.Integer({kKey});
  const auto longest = config.Integer({"max_position_embeddings"});
  const auto first_of = [&longest](std::optional<std::int64_t> first, std::optional<std::int64_t> second) {
    return first ? first : second ? second : longest;
  };
  const auto of_five = source.is_nested ? first_of(within, {}) : first_of(beside, within);
  const bool is_long = type == "longrope" || type == "su";
  // PhiMoE's own code looks into the dictionary alone.
  const auto of_four = config.HasTrait(kTwoMagnitudes) ? within : is_long ? first_of(beside, {}) : first_of(within, {});
  if (std::string_view(source.key) == "rope_scaling" && of_four != of_five) {
    config.Fail(kKey, absl::StrCat("is not the same beside ", source.key,
                                   " and in it, and versions of transformers take "
                                   "one or the other. Write the same number in both"));
    return 0;
  }
  if (of_five && *of_five >= 1) return *of_five;
  config.Fail(kKey, "is needed for the scaling of rotary embeddings; at least 1");
  return 0;
}

// `_compute_yarn_parameters` of transformers.
void SetYarn(ModelConfig& parameters, std::int64_t original, std::int64_t dim, bool truncates, Rotary& rotary) {
  const double factor = parameters.Number({"factor"}).value_or(0);
  if (!(factor >= 1)) return parameters.Fail("factor", "of yarn must be at least 1");
  const auto magnitude = [factor](double scale) { return 0.1 * scale * std::log(factor) + 1; };
  const double mscale = parameters.Number({"mscale"}).value_or(0);
  const double mscale_all_dim = parameters.Number({"mscale_all_dim"}).value_or(0);
  const bool has_both = mscale != 0 && mscale_all_dim != 0;
  const double standard = has_both ? magnitude(mscale) / magnitude(mscale_all_dim) : magnitude(1);
  rotary.attention_factor = parameters.Number({"attention_factor"}).value_or(standard);
  const auto or_if_zero = [&](const char* key, double otherwise) {
    const double number = parameters.Number({key}).value_or(0);
    return number == 0 ? otherwise : number;
  };
  const auto turned = static_cast<double>(dim);
  const auto correction = [&](double turns) {
    return turned * std::log(static_cast<double>(original) / (turns * 2 * M_PI)) / (2 * std::log(rotary.base));
  };
  double low = correction(or_if_zero("beta_fast", 32)), high = correction(or_if_zero("beta_slow", 1));
  if (truncates) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, turned - 1);
  if (low == high) high += 0.001;
  for (std::int64_t i = 0; i < dim / 2; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double frequency = std::pow(rotary.base, -2 * static_cast<double>(i) / turned);
    rotary.frequencies.push_back(frequency / factor * ramp + frequency * (1 - ramp));
  }
}

// 1 / (factor * base^(2 i / dim)) for the factors at `key`.
std::vector<double> DividedFrequencies(ModelConfig& parameters, const char* key, std::int64_t dim, double base) {
  std::vector<double> frequencies;
  const nlohmann::json* const factors = parameters.Find(key);
  if (factors == nullptr || !factors->is_array() || static_cast<std::int64_t>(factors->size()) != dim / 2) {
    parameters.Fail(key, absl::StrCat("must be a list of ", dim / 2, " numbers, half of what is turned of a head"));
    return frequencies;
  }
  for (std::int64_t i = 0; i < dim / 2; ++i) {
    const nlohmann::json& factor = (*factors)[static_cast<std::size_t>(i)];
    if (!factor.is_number() || !(factor.get<double>() > 0)) parameters.Fail(key, "has an entry that is not positive");
    const double divisor = factor.is_number() ? factor.get<double>() : 1;
    frequencies.push_back(std::pow(base, -2 * static_cast<double>(i) / static_cast<double>(dim)) / divisor);
  }
  return frequencies;
}

// By what PhiMoE multiplies sines and cosines, whatever `attention_factor` says. A layer has one factor for all
// lengths.
void SetMagnitude(ModelConfig& parameters, Rotary& rotary) {
  const auto of_short = parameters.Number({"short_mscale"}), of_long = parameters.Number({"long_mscale"});
  if (!of_short || !of_long || *of_short != *of_long || !(*of_short > 0)) {
    return parameters.Fail(
        "short_mscale",
        absl::StrCat("and 'long_mscale' must both be there and be the same positive number: ", parameters.model_type(),
                     " models multiply short texts by one and long ones by the other"));
  }
  rotary.attention_factor = *of_short;
}

// The attention factor of `_compute_longrope_parameters`.
void SetLongFactor(ModelConfig& config, ModelConfig& parameters, std::int64_t original, Rotary& rotary) {
  const std::optional<double> given = parameters.Number({"attention_factor"});
  if (given) {
    rotary.attention_factor = *given;
    return;
  }
  const auto length = config.Integer({"max_position_embeddings"});
  const double ratio = static_cast<double>(length.value_or(0)) / static_cast<double>(original);
  const double factor = parameters.Number({"factor"}).value_or(ratio);
  if (!length && !parameters.Has("factor")) {
    return config.Fail("max_position_embeddings", "is needed for the scaling of rotary embeddings");
  }
  if (length && std::abs(factor - ratio) > 1e-6 * ratio) {
    return parameters.Fail("factor",
                           "is not max_position_embeddings by original_max_position_embeddings; versions of "
                           "transformers take one or the other. Add attention_factor");
  }
  rotary.attention_factor = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
}

// `_compute_longrope_parameters` of transformers.
void SetLongRope(ModelConfig& config, ModelConfig& parameters, std::int64_t original, std::int64_t dim,
                 Rotary& rotary) {
  rotary.frequencies = DividedFrequencies(parameters, "short_factor", dim, rotary.base);
  rotary.long_frequencies = DividedFrequencies(parameters, "long_factor", dim, rotary.base);
  rotary.original_context_length = original;
  if (config.HasTrait(kTwoMagnitudes)) return SetMagnitude(parameters, rotary);
  SetLongFactor(config, parameters, original, rotary);
}

void SetLongScaling(const std::string& type, ModelConfig& config, Source& source, std::int64_t head_dim,
                    Rotary& rotary) {
  ModelConfig& parameters = source.parameters;
  const std::int64_t dim = rotary.dim == 0 ? head_dim : rotary.dim;
  if (head_dim < 2 || dim < 2) return config.Fail(source.key, "needs the size of a head, which is not known");
  if (!(rotary.base > 1)) return config.Fail("rope_theta", "must be above 1 for a scaling");
  if (type == "dynamic") {
    // Its original length is max_position_embeddings in all versions.
    const auto length = config.Integer({"max_position_embeddings"});
    rotary.dynamic_factor = parameters.Number({"factor"}).value_or(0);
    if (!length || *length < 1 || !(*rotary.dynamic_factor >= 1)) {
      return config.Fail(source.key, "needs a factor of at least 1, and max_position_embeddings");
    }
    rotary.original_context_length = *length;
    return;
  }
  const std::int64_t original = OriginalLength(config, source, type);
  if (original == 0) return;
  if (type == "yarn") {
    SetYarn(parameters, original, dim, source.truncates, rotary);
  } else {
    SetLongRope(config, parameters, original, dim, rotary);
  }
}

void SetScaling(ModelConfig& config, Source& source, std::int64_t head_dim, Rotary& rotary) {
  ModelConfig& parameters = source.parameters;
  const std::string type = TypeOf(parameters);
  if (type.empty() || type == "default") return;
  if (config.HasTrait(kLongRopeAlone) && type != "longrope" && type != "su") {
    return parameters.Fail(source.key, absl::StrCat("has the type '", type.substr(0, 32), "'; the code of ",
                                                    config.model_type(), " models has longrope alone"));
  }
  const double factor = parameters.Number({"factor"}).value_or(0);
  if (type == "yarn" || type == "longrope" || type == "su" || type == "dynamic") {
    SetLongScaling(type, config, source, head_dim, rotary);
  } else if (type == "linear") {
    rotary.linear_factor = factor;
  } else if (type == "llama3") {
    rotary.llama3 = Llama3{factor, parameters.Number({"low_freq_factor"}).value_or(0),
                           parameters.Number({"high_freq_factor"}).value_or(0), OriginalLength(config, source, type)};
  } else {
    parameters.Fail(
        source.key,
        absl::StrCat("has the type '", type.substr(0, 32),
                     "'; default, linear, llama3, yarn, longrope and dynamic are known. Set rotary_embedding in the "
                     "layer's configuration to use the model without it"));
  }
}

double Base(ModelConfig& config, ModelConfig& parameters, bool is_sliding) {
  if (const auto base = parameters.Number({"rope_theta"})) return *base;
  if (is_sliding && !config.Has("rope_parameters")) {
    if (const auto base = config.Number({"rope_local_base_freq", "local_rope_theta"})) return *base;
  }
  if (is_sliding && config.Reads("rope_local_base_freq")) return 10000;
  if (const auto base = config.Number({"rotary_emb_base", "global_rope_theta", "rope_theta"})) {
    return config.Reads("rope_ratio") ? *base * config.Number({"rope_ratio"}).value_or(1) : *base;
  }
  return 10000;
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
  if (!share) share = config.Number({"rotary_pct", "partial_rotary_factor"});
  if (!share || *share == 1) return 0;
  if (head_dim == 0 || !(*share > 0 && *share < 1)) {
    config.Fail("partial_rotary_factor", "is not a share of a known size of a head");
    return 0;
  }
  const auto dim = static_cast<std::int64_t>(static_cast<double>(head_dim) * *share);
  // Transformers turns one element more then, by the frequencies of the odd number.
  if (dim % 2 != 0 && !config.Reads("rope_ratio")) {
    config.Fail("partial_rotary_factor",
                absl::StrCat("turns ", dim, " elements of a head; odd numbers are not supported"));
  }
  return dim;
}

// Refuses what transformers 4, which turns all layers of such a model with one base, and 5 read differently.
void RefuseTwoBases(ModelConfig& config, const Source& source, double base, bool is_sliding) {
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
  Source source = FindSource(config, is_sliding);
  rotary.base = base ? *base : Base(config, source.parameters, is_sliding);
  RefuseTwoBases(config, source, rotary.base, is_sliding);
  rotary.dim = TurnedDim(config, source.parameters, head_dim);
  if (!config.status().ok()) return {};
  // Before transformers 5 the one `rope_scaling` of some models was that of the layers without a window.
  const bool is_of_full = config.HasTrait(kScalesWhereFull) && !config.Has("rope_parameters");
  const bool scales = !is_sliding || !is_of_full;
  if (is_sliding && is_of_full && !config.Reads("rope_local_base_freq") && rotary.base != kOlmo3Base) {
    config.Fail("rope_theta", absl::StrCat("is not ", kOlmo3Base,
                                           ", and for layers with a window transformers 4 takes "
                                           "it and transformers 5 does not. Write rope_parameters"));
  }
  if (scales) SetScaling(config, source, head_dim, rotary);
  config.Update(source.parameters.status());
  Setting<Rotary> setting;
  setting.Set(std::move(rotary),
              absl::StrCat(OfType(config), ", config.json: ", config.Has(source.key) ? source.key : "rope_theta"));
  return setting;
}

}  // namespace attend::formats
