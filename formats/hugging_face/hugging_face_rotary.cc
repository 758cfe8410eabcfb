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

// The usual names, and those of GPT-NeoX and its kin.
constexpr const char* kBase = "rope_theta";
constexpr const char* kShare = "partial_rotary_factor";
constexpr const char* kNeoxBase = "rotary_emb_base";
constexpr const char* kNeoxShare = "rotary_pct";

// What the file says outside of the parameters of rotary embeddings.
double BaseBeside(ModelConfig& config, bool is_sliding) {
  if (is_sliding && !config.Says("rope_parameters")) {
    if (const auto base = config.Number({"rope_local_base_freq", "local_rope_theta"})) return *base;
  }
  if (is_sliding && config.Reads("rope_local_base_freq")) return 10000;
  const auto base = config.Reads(kNeoxBase) ? config.Number({kNeoxBase}) : config.Number({"global_rope_theta", kBase});
  if (base) {
    return config.Reads("rope_ratio") ? *base * config.Number({"rope_ratio"}).value_or(1) : *base;
  }
  return 10000;
}

std::optional<double> ShareBeside(ModelConfig& config) {
  return config.Number({config.Reads(kNeoxShare) ? kNeoxShare : kShare});
}

// Refuses the usual names beside those that GPT-NeoX's code reads in their place, unless they say the same.
void RefuseTwoNames(ModelConfig& config) {
  constexpr std::pair<const char*, const char*> kNames[] = {{kNeoxBase, kBase}, {kNeoxShare, kShare}};
  for (const auto& [own, usual] : kNames) {
    if (!config.Reads(own) || !config.Says(usual)) continue;
    const auto read = config.Number({own}), beside = config.Number({usual});
    if (!beside || read == beside) continue;
    config.Fail(usual, absl::StrCat("is not what ", own, " is, which the code of ", config.model_type(),
                                    " models reads. Write the same number into both, or leave it out"));
  }
}

// Refuses what the code of some models does not read, unless it says what that code does.
void RefuseUnread(ModelConfig& config, RotaryParameters& source) {
  if (!config.HasTrait(kFixedRotary)) return;
  constexpr const char* kWayOut = ". Remove it, or set rotary_embedding in the layer's configuration";
  for (const char* const key : {kBase, kShare}) {
    const double fixed = config.Standard(key).value_or(1);
    for (ModelConfig* const place : {&config, &source.values}) {
      const auto says = place->Number({key});
      if (!says || *says == fixed) continue;
      config.Fail(key, absl::StrCat("is ", *says, ", and there is code for ", config.model_type(), " models that has ",
                                    fixed, " whatever it is", kWayOut));
    }
  }
  if (config.Reads("rotary_dim") && (config.Find(kShare) != nullptr || source.values.Find(kShare) != nullptr)) {
    config.Fail(kShare, absl::StrCat("is set, and the code of ", config.model_type(), " models reads rotary_dim alone",
                                     kWayOut));
  }
  if (source.type == "default") return;
  config.Fail(source.key, absl::StrCat("has the type '", source.type, "', and the code of ", config.model_type(),
                                       " models has no scaling of rotary embeddings", kWayOut));
}

// Refuses a number beside `rope_parameters`, where transformers 4 reads it, that is another within, where 5 does.
void RefuseOtherBeside(ModelConfig& config, RotaryParameters& source) {
  if (std::string_view(source.key) != "rope_parameters" || source.is_nested) return;
  const std::pair<const char*, const char*> names[] = {{config.Reads(kNeoxBase) ? kNeoxBase : kBase, kBase},
                                                       {config.Reads(kNeoxShare) ? kNeoxShare : kShare, kShare}};
  for (const auto& [beside_name, within_name] : names) {
    if (!config.Says(beside_name)) continue;
    const auto beside = config.Number({beside_name}), within = source.values.Number({within_name});
    if (!beside || !within || *beside == *within) continue;
    config.Fail(beside_name, absl::StrCat("is not the ", within_name,
                                          " of rope_parameters; transformers 4 reads the "
                                          "one and 5 the other. Write the same number into both, or leave it out"));
  }
}

// Refuses what transformers 4 does not look for in `rope_scaling`, and 5 does, unless it is the same beside it.
void RefuseTwoPlaces(ModelConfig& config, RotaryParameters& source, bool is_sliding) {
  if (std::string_view(source.key) != "rope_scaling" || source.is_nested) return;
  constexpr const char* kWhy =
      "is in rope_scaling, where transformers 5 reads it, and not the same beside it, where 4 does. Write it into both";
  const auto base = source.values.Number({kBase}), share = source.values.Number({kShare});
  if (base && *base != BaseBeside(config, is_sliding)) config.Fail(kBase, kWhy);
  if (share && *share != ShareBeside(config).value_or(1)) config.Fail(kShare, kWhy);
}

// Refuses a base of null within the parameters: transformers 5, which puts its own there where the key is missing,
// keeps it and fails.
void RefuseNullBase(ModelConfig& config, const RotaryParameters& source) {
  if (config.HasTrait(kFixedRotary) || !source.values.Has(kBase) || source.values.Says(kBase)) return;
  config.Fail(kBase, absl::StrCat("is null in ", source.key,
                                  ", and transformers 5 computes with a number. Write it, or leave the key out"));
}

// ChatGLM2's code divides positions by the ratio, ChatGLM3's and GLM-4's multiplies the base by it. Their files have
// the same keys; only the vocabulary says that a file is GLM-4's.
void RefuseRatio(ModelConfig& config) {
  constexpr const char* kRatio = "rope_ratio";
  constexpr std::int64_t kVocabularyOfGlm4 = 151552;  // The others' is 65024, also without the key.
  if (!config.Reads(kRatio) || config.Number({kRatio}).value_or(1) == 1) return;
  if (config.Integer({"padded_vocab_size"}).value_or(0) >= kVocabularyOfGlm4) return;
  config.Fail(kRatio,
              "is not 1: the code of ChatGLM2 divides positions by it, that of ChatGLM3 multiplies the base by it, and "
              "nothing says which of them this is. Set rotary_embedding in the layer's configuration: form "
              "ROTARY_FORM_INTERLEAVED, dim half a head, and for ChatGLM2 linear_factor the ratio, for ChatGLM3 base "
              "10000 times the ratio");
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
  std::optional<double> share = parameters.Number({kShare});
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
  if (config.Says("rope_parameters")) {
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
  RefuseOtherBeside(config, source);
  RefuseTwoNames(config);
  RefuseUnread(config, source);
  if (!base) RefuseNullBase(config, source);
  RefuseRatio(config);
  const auto within = config.HasTrait(kFixedRotary) ? std::nullopt : source.values.Number({kBase});
  rotary.base = base ? *base : within ? *within : BaseBeside(config, is_sliding);
  RefuseTwoBases(config, source, rotary.base, is_sliding);
  rotary.dim = TurnedDim(config, source.values, head_dim);
  if (!config.status().ok()) return {};
  // Before transformers 5 the one `rope_scaling` of some models was that of the layers without a window.
  const bool is_of_full = config.HasTrait(kScalesWhereFull) && !config.Says("rope_parameters");
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
  const char* const name = config.Says(source.key) ? source.key : config.Reads(kNeoxBase) ? kNeoxBase : kBase;
  setting.Set(std::move(rotary), absl::StrCat(OfType(config), ", config.json: ", name));
  return setting;
}

}  // namespace attend::formats
