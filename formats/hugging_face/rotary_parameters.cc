#include "formats/hugging_face/rotary_parameters.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attend::formats {
namespace {

constexpr const char* kOfFive = "rope_parameters";
constexpr const char* kOfFour = "rope_scaling";

// What the parameters of any type may have. A text's positions are the same on the three axes of `mrope_section`.
constexpr const char* kAlways = "rope_type type rope_theta partial_rotary_factor mrope_section mrope_interleaved";

// What those of one type may have beside it: what the code of transformers reads. `original_max_position_embeddings` of
// linear and dynamic, and `finetuned` of yarn, are in published files and only say how the model was made.
struct TypeKeys {
  const char* type;
  const char* keys;
};
constexpr TypeKeys kTypes[] = {
    {"default", ""},
    {"linear", "factor original_max_position_embeddings"},
    {"dynamic", "factor original_max_position_embeddings"},
    {"llama3", "factor original_max_position_embeddings low_freq_factor high_freq_factor"},
    {"yarn",
     "factor original_max_position_embeddings attention_factor beta_fast beta_slow mscale mscale_all_dim truncate "
     "finetuned"},
    {"longrope", "factor original_max_position_embeddings attention_factor short_factor long_factor"},
};

bool HasWord(const std::string& words, const std::string& word) {
  const std::vector<std::string> list = absl::StrSplit(words, ' ');
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool IsLive(const nlohmann::json& value) { return !value.is_null(); }

// What `rope_type` and `type` say; empty when they are silent.
std::string SaidType(ModelConfig& config, RotaryParameters& parameters) {
  std::string types[] = {parameters.values.Text("rope_type"), parameters.values.Text("type")};
  for (std::string& type : types) {
    if (type == "mrope") type = "default";  // Of three positions, for pictures.
    if (type == "su") type = "longrope";
  }
  if (!types[0].empty() && !types[1].empty() && types[0] != types[1]) {
    config.Fail(parameters.key, absl::StrCat("has the rope_type '", types[0].substr(0, 32), "' and the type '",
                                             types[1].substr(0, 32), "'. Leave one of them out"));
  }
  return types[0].empty() ? types[1] : types[0];
}

bool MayHave(const ModelConfig& config, const RotaryParameters& parameters, const char* of_type,
             const std::string& name) {
  if (HasWord(kAlways, name) || HasWord(of_type, name)) return true;
  // Qwen3-Omni's word for mrope_interleaved.
  if (name == "interleaved") return parameters.values.Says("mrope_section");
  return config.HasTrait(kTwoMagnitudes) && parameters.type == "longrope" && HasWord("short_mscale long_mscale", name);
}

void CheckKeys(ModelConfig& config, const RotaryParameters& parameters, bool is_said) {
  const auto* const known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                         [&](const TypeKeys& type) { return parameters.type == type.type; });
  if (known == std::end(kTypes)) {
    return config.Fail(parameters.key,
                       absl::StrCat("has the type '", parameters.type.substr(0, 32),
                                    "'; default, linear, llama3, yarn, longrope and dynamic are known. Set "
                                    "rotary_embedding in the layer's configuration to use the model without it"));
  }
  for (const auto& [name, value] : parameters.values.json().items()) {
    if (!IsLive(value) || MayHave(config, parameters, known->keys, name)) continue;
    const std::string type = is_said ? absl::StrCat("the type '", parameters.type, "'") : "no type (rope_type)";
    return config.Fail(parameters.key,
                       absl::StrCat("has ", type, " and the key '", name.substr(0, 64),
                                    "', and what that does to a rotary embedding of this type is not known. Set "
                                    "rotary_embedding in the layer's configuration, or remove the key"));
  }
}

// Transformers 4 does not know `rope_parameters`, and 5 takes `rope_scaling` if it has both.
void RefuseTwoDictionaries(ModelConfig& config) {
  if (!config.Says(kOfFive) || !config.Says(kOfFour)) return;
  const nlohmann::json& of_four = config.json().at(kOfFour);
  if (of_four.empty() || of_four == config.json().at(kOfFive)) return;
  config.Fail(kOfFour, "is not what rope_parameters is. Leave one of them out");
}

// Of a dictionary with parameters for each kind of layer.
void CheckKinds(ModelConfig& config, const RotaryParameters& all, const char* kind) {
  for (const auto& [name, value] : all.values.json().items()) {
    if (!IsLive(value) || name == "truncate" || (absl::EndsWith(name, "_attention") && value.is_object())) continue;
    return config.Fail(all.key, absl::StrCat("has parameters for each kind of layer and beside them '",
                                             name.substr(0, 64), "', which none of them reads"));
  }
  // Transformers completes the others' alone.
  if (all.values.Says(kind) || config.HasTrait(kScalesWhereFull | kOneBase)) return;
  config.Fail(all.key, absl::StrCat("has parameters for kinds of layers and none for '", kind, "'"));
}

}  // namespace

RotaryParameters FindRotaryParameters(ModelConfig& config, bool is_sliding) {
  RefuseTwoDictionaries(config);
  const char* const key = config.Says(kOfFive) ? kOfFive : kOfFour;
  const char* const kind = is_sliding ? "sliding_attention" : "full_attention";
  RotaryParameters all{.values = config.Object(key), .key = key};
  all.is_nested = all.values.Has("full_attention") || all.values.Has("sliding_attention");
  // True without the key; null counts as false.
  all.truncates = all.values.Boolean("truncate").value_or(!all.values.Has("truncate"));
  RotaryParameters found = all;
  if (all.is_nested) {
    CheckKinds(config, all, kind);
    found.values = all.values.Object(kind);
    if (found.values.Boolean("truncate").value_or(all.truncates) != all.truncates) {
      config.Fail("truncate", absl::StrCat("of ", kind, " is read beside it, in ", key, ", and not the same there"));
    }
  }
  config.Update(all.values.status());
  const std::string said = SaidType(config, found);
  found.type = said.empty() ? "default" : said;
  CheckKeys(config, found, !said.empty());
  return found;
}

}  // namespace attend::formats
