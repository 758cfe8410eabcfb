#include "formats/hugging_face/rotary_parameters.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attend::formats {
namespace {

// The number of tokens that the model was made for, before its scaling. 0 with a status when the file does not say it,
// or when transformers 4 and 5 read different numbers from it.
std::int64_t OriginalLength(ModelConfig& config, RotaryParameters& source) {
  constexpr const char* kKey = "original_max_position_embeddings";
  const auto beside = config.Integer({kKey}), within = source.values.Integer({kKey});
  const auto longest = config.Integer({"max_position_embeddings"});
  const auto first_of = [&longest](std::optional<std::int64_t> first, std::optional<std::int64_t> second) {
    return first ? first : second ? second : longest;
  };
  const auto of_five = source.is_nested ? first_of(within, {}) : first_of(beside, within);
  const bool is_long = source.type == "longrope";
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
  const std::optional<double> said = parameters.Number({"factor"});
  const double factor = said.value_or(ratio);
  if (!length && !said) {
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

void SetLongScaling(const std::string& type, ModelConfig& config, RotaryParameters& source, std::int64_t head_dim,
                    Rotary& rotary) {
  ModelConfig& parameters = source.values;
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
  const std::int64_t original = OriginalLength(config, source);
  if (original == 0) return;
  if (type == "yarn") {
    SetYarn(parameters, original, dim, source.truncates, rotary);
  } else {
    SetLongRope(config, parameters, original, dim, rotary);
  }
}

void SetLlama3(ModelConfig& config, RotaryParameters& source, Rotary& rotary) {
  ModelConfig& parameters = source.values;
  const auto number = [&parameters](const char* key) { return parameters.Number({key}).value_or(0); };
  const Llama3 llama3{number("factor"), number("low_freq_factor"), number("high_freq_factor"),
                      OriginalLength(config, source)};
  if (!(llama3.factor >= 1)) return parameters.Fail("factor", "of llama3 must be at least 1");
  if (!(llama3.low_freq_factor > 0)) return parameters.Fail("low_freq_factor", "of llama3 must be positive");
  if (!(llama3.high_freq_factor > llama3.low_freq_factor)) {
    return parameters.Fail("high_freq_factor", "of llama3 must be above low_freq_factor");
  }
  rotary.llama3 = llama3;
}

void SetLinear(ModelConfig& parameters, Rotary& rotary) {
  const double factor = parameters.Number({"factor"}).value_or(0);
  if (!(factor > 0)) return parameters.Fail("factor", "of a linear scaling must be a positive number");
  rotary.linear_factor = factor;
}

}  // namespace

void SetScaling(ModelConfig& config, RotaryParameters& source, std::int64_t head_dim, Rotary& rotary) {
  const std::string& type = source.type;
  if (type == "default") return;
  if (config.HasTrait(kLongRopeAlone) && type != "longrope") {
    return config.Fail(source.key, absl::StrCat("has the type '", type, "'; the code of ", config.model_type(),
                                                " models has longrope alone"));
  }
  if (type == "linear") return SetLinear(source.values, rotary);
  if (type == "llama3") return SetLlama3(config, source, rotary);
  SetLongScaling(type, config, source, head_dim, rotary);
  if (!(rotary.attention_factor > 0)) config.Fail("attention_factor", "must be positive");
}

}  // namespace attend::formats
