#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/hugging_face/model_config.h"

namespace attend::formats {
namespace {

// ALiBi's slopes (Press et al. 2022): a geometric sequence for the largest power of two of heads, and for the rest
// every other one of twice as many.
std::vector<float> AlibiSlopes(std::int64_t heads, double max_bias) {
  std::int64_t power = 1;
  while (power * 2 <= heads) power *= 2;
  std::vector<float> slopes;
  for (std::int64_t i = 1; i <= power; ++i) {
    slopes.push_back(static_cast<float>(std::exp2(-max_bias * static_cast<double>(i) / static_cast<double>(power))));
  }
  for (std::int64_t i = 1; i <= 2 * (heads - power); i += 2) {
    slopes.push_back(
        static_cast<float>(std::exp2(-max_bias * static_cast<double>(i) / static_cast<double>(2 * power))));
  }
  return slopes;
}

// MPT computes the slopes of the next power of two of heads, and takes the second of each pair before the first.
std::vector<float> MptSlopes(std::int64_t heads, double max_bias) {
  std::int64_t power = 1;
  while (power < heads) power *= 2;
  std::vector<float> all = AlibiSlopes(power, max_bias);
  if (power == heads) return all;
  std::vector<float> slopes;
  for (const std::size_t start : {std::size_t{1}, std::size_t{0}}) {
    for (std::size_t i = start; i < all.size(); i += 2) slopes.push_back(all[i]);
  }
  slopes.resize(static_cast<std::size_t>(heads));
  return slopes;
}

bool CheckSlopesHeads(ModelConfig& config, std::int64_t heads) {
  if (heads >= 1 && heads <= 1024) return true;
  config.Fail("n_head", "must be between 1 and 1024 for ALiBi");
  return false;
}

// What MPT's dictionary may have: what ReadMptAttention looks at, which code computes it, and what is of use with
// `rope` alone.
constexpr const char* kMptKeys =
    "alibi alibi_bias_max attn_impl attn_pdrop attn_type attn_uses_sequence_id clip_qkv fused_qkv prefix_lm qk_ln rope "
    "rope_dail_config rope_hf_config rope_impl rope_theta sliding_window_size softmax_scale";

// MPT's config.json has a dictionary of its own for attention.
void ReadMptAttention(ModelConfig& config, std::int64_t heads, const CallerSettings& caller, LayerSettings& layer) {
  ModelConfig attention = config.Object("attn_config");
  for (const char* const key :
       {"clip_qkv", "prefix_lm", "attn_uses_sequence_id", "qk_ln", "rope", "sliding_window_size"}) {
    const nlohmann::json* const value = attention.Find(key);
    if (value == nullptr || *value == false || *value == -1) continue;
    config.Fail(absl::StrCat("attn_config.", key),
                "is set, which changes what the layer computes and is not supported");
  }
  if (const std::string type = attention.Text("attn_type"); !type.empty() && type != "multihead_attention") {
    config.Fail("attn_config.attn_type", "must be multihead_attention; others are not supported");
  }
  if (const auto scale = attention.Number({"softmax_scale"}); scale && !caller.scale) {
    layer.scale.Set(*scale, "config.json: attn_config.softmax_scale");
  }
  // MPT's own code takes null for false.
  const bool has_alibi = attention.Boolean("alibi").value_or(!attention.Has("alibi"));
  const bool is_usual = has_alibi && attention.Number({"alibi_bias_max"}).value_or(8) == 8;
  config.Update(attention.status());
  config.Update(CheckInnerKeys(attention, "attn_config", kMptKeys, caller));
  if (caller.alibi_slopes) return;
  if (!is_usual) {
    return config.Fail("attn_config",
                       "has alibi false or alibi_bias_max other than 8, which MPT's own code follows and "
                       "transformers does not. Set alibi_slopes in the layer's configuration");
  }
  if (CheckSlopesHeads(config, heads)) layer.alibi_slopes.Set(MptSlopes(heads, 8), OfType(config));
}

}  // namespace

void SetAlibi(ModelConfig& config, std::int64_t heads, const CallerSettings& caller, LayerSettings& layer) {
  if (config.Reads("attn_config")) return ReadMptAttention(config, heads, caller, layer);
  if (caller.alibi_slopes) return;
  if (config.Reads("alibi") && config.Boolean("alibi").value_or(false)) {
    return config.Fail("alibi", "of Falcon, which scales it with the scores, is not supported");
  }
  if (!config.HasTrait(kAlibi) || !CheckSlopesHeads(config, heads)) return;
  layer.alibi_slopes.Set(AlibiSlopes(heads, 8), OfType(config));
}

}  // namespace attend::formats
