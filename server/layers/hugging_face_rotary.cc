#include "server/layers/hugging_face_rotary.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

// Whether the model has rotary embeddings, also when its file does not mention them.
bool HasRotary(formats::ModelConfig& config) {
  if (config.IsModel({"bloom", "mpt", "gpt2", "opt", "gpt_neo", "t5", "mt5", "umt5"})) return false;
  if (config.IsModel({"falcon"})) return !config.Boolean("alibi").value_or(false);
  for (const char* const key : {"rope_theta", "rope_scaling", "rope_parameters", "rotary_pct", "rotary_dim",
                                "partial_rotary_factor", "rotary_emb_base", "global_rope_theta"}) {
    if (config.Find(key) != nullptr) return true;
  }
  return config.IsModel({"llama",   "mistral",    "mixtral", "qwen2",       "qwen2_moe", "qwen3",      "qwen3_moe",
                         "gemma",   "gemma2",     "gemma3",  "gemma3_text", "phi",       "phi3",       "gpt_neox",
                         "gptj",    "stablelm",   "olmo",    "olmo2",       "olmo3",     "cohere",     "cohere2",
                         "granite", "starcoder2", "smollm3", "glm",         "glm4",      "modernbert", "gpt_oss"});
}

// The parameters of rotary embeddings: a dictionary of their own since transformers 5, one for each kind of layer where
// these differ; before that, keys of the model and `rope_scaling`.
formats::ModelConfig Parameters(const formats::ModelConfig& config, bool is_sliding) {
  formats::ModelConfig parameters = config.Object("rope_parameters");
  if (parameters.empty()) parameters = config.Object("rope_scaling");
  const char* const kind = is_sliding ? "sliding_attention" : "full_attention";
  return parameters.Find(kind) != nullptr ? parameters.Object(kind) : parameters;
}

void SetScaling(formats::ModelConfig& parameters, v1::RotaryEmbedding& rotary) {
  std::string type = parameters.Text("rope_type");
  if (type.empty()) type = parameters.Text("type");
  if (type.empty() || type == "default") return;
  const double factor = parameters.Number({"factor"}).value_or(0);
  if (type == "linear") {
    rotary.set_linear_factor(factor);
  } else if (type == "llama3") {
    v1::Llama3Scaling& llama3 = *rotary.mutable_llama3();
    llama3.set_factor(factor);
    llama3.set_low_freq_factor(parameters.Number({"low_freq_factor"}).value_or(0));
    llama3.set_high_freq_factor(parameters.Number({"high_freq_factor"}).value_or(0));
    llama3.set_original_context_length(parameters.Integer({"original_max_position_embeddings"}).value_or(0));
  } else {
    parameters.Fail("rope_scaling", absl::StrCat("has the type '", type.substr(0, 32),
                                                 "'; default, linear and llama3 are known. Set rotary_embedding in the "
                                                 "layer's configuration to use the model without it"));
  }
}

double Base(formats::ModelConfig& config, formats::ModelConfig& parameters, bool is_sliding) {
  if (const auto base = parameters.Number({"rope_theta"})) return *base;
  if (is_sliding) {
    if (const auto base = config.Number({"rope_local_base_freq", "local_rope_theta"})) return *base;
  }
  if (const auto base = config.Number({"rope_theta", "rotary_emb_base", "global_rope_theta"})) return *base;
  if (config.IsModel({"modernbert"})) return is_sliding ? 10000 : 160000;
  if (config.IsModel({"gemma3", "gemma3_text"})) return is_sliding ? 10000 : 1000000;
  return 10000;
}

// How many elements of a head are turned; 0: all.
std::int64_t TurnedDim(formats::ModelConfig& config, formats::ModelConfig& parameters, std::int64_t head_dim) {
  if (const auto dim = config.Integer({"rotary_dim"})) return *dim;
  std::optional<double> share = parameters.Number({"partial_rotary_factor"});
  if (!share) share = config.Number({"partial_rotary_factor", "rotary_pct"});
  if (!share && config.IsModel({"gpt_neox", "stablelm"})) share = 0.25;
  if (!share && config.IsModel({"phi", "glm", "glm4"})) share = 0.5;
  if (!share || *share == 1) return 0;
  if (head_dim == 0 || !(*share > 0 && *share < 1)) {
    config.Fail("partial_rotary_factor", "is not a share of a known size of a head");
    return 0;
  }
  return static_cast<std::int64_t>(static_cast<double>(head_dim) * *share);
}

}  // namespace

std::optional<v1::RotaryEmbedding> RotaryOf(formats::ModelConfig& config, std::int64_t head_dim, bool is_sliding) {
  if (!HasRotary(config)) return std::nullopt;
  v1::RotaryEmbedding rotary;
  const bool interleaved = config.IsModel({"gptj", "codegen", "cohere", "cohere2", "glm", "glm4"});
  rotary.set_form(interleaved ? v1::ROTARY_FORM_INTERLEAVED : v1::ROTARY_FORM_HALF);
  formats::ModelConfig parameters = Parameters(config, is_sliding);
  rotary.set_base(Base(config, parameters, is_sliding));
  rotary.set_dim(static_cast<std::int32_t>(TurnedDim(config, parameters, head_dim)));
  // Before transformers 5 the one `rope_scaling` of Gemma 3 was that of the layers without a window.
  const bool scales =
      !is_sliding || config.Find("rope_parameters") != nullptr || config.Find("rope_local_base_freq") == nullptr;
  if (scales) SetScaling(parameters, rotary);
  config.Update(parameters.status());
  return rotary;
}

}  // namespace attend::server
