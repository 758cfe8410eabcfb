// Guards that published config.json files are read, cut to their keys that may be about attention.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/hugging_face/hugging_face_config.h"
#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::HasSubstr;

// Each key has the value that says what the type's code does.
TEST(PublishedConfigs, AreRead) {
  const std::string ones = absl::StrCat("[", absl::StrJoin(std::vector<int>(48, 1), ","), "]");
  const struct {
    const char* name;
    std::string json;
    std::int64_t head_dim, heads, kv_heads;
    double base;
    RotaryForm form;
  } cases[] = {
      {"Qwen2.5-0.5B", R"({"model_type": "qwen2", "attention_dropout": 0.0, "max_position_embeddings": 32768,
           "max_window_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
           "rope_theta": 1000000.0, "sliding_window": 32768, "use_mrope": false, "use_sliding_window": false,
           "num_hidden_layers": 24})",
       64, 14, 2, 1e6, RotaryForm::kHalf},
      {"DeepSeek-R1-Distill-Qwen-7B", R"({"model_type": "qwen2", "attention_dropout": 0.0,
           "max_position_embeddings": 131072, "max_window_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 10000, "sliding_window": 4096,
           "use_mrope": false, "use_sliding_window": false, "num_hidden_layers": 28})",
       128, 28, 4, 1e4, RotaryForm::kHalf},
      {"Phi-4-mini-instruct",
       R"({"model_type": "phi3", "attention_bias": false, "attention_dropout": 0.0,
           "embd_pdrop": 0.0, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": false,
           "max_position_embeddings": 131072, "num_attention_heads": 24, "num_hidden_layers": 32,
           "num_key_value_heads": 8, "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75,
           "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 262144,
           "rope_scaling": {"type": "longrope", "short_factor": )" +
           ones + R"(, "long_factor": )" + ones + "}}",
       128, 24, 8, 1e4, RotaryForm::kHalf},
      {"gpt-j-6b", R"({"model_type": "gptj", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "layer_norm_epsilon": 1e-05,
           "n_embd": 4096, "n_head": 16, "n_inner": null, "n_layer": 28, "n_positions": 2048, "resid_pdrop": 0.0,
           "rotary": true, "rotary_dim": 64, "scale_attn_weights": true})",
       256, 16, 0, 1e4, RotaryForm::kInterleaved},
      {"c4ai-command-r7b-12-2024", R"({"model_type": "cohere2", "attention_bias": false, "attention_dropout": 0.0,
           "head_dim": 128, "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25,
           "max_position_embeddings": 132096, "num_attention_heads": 32, "num_hidden_layers": 32,
           "num_key_value_heads": 8, "order_of_interleaved_layers": "local_attn_first",
           "position_embedding_type": "rope_gptj", "rope_scaling": null, "rope_theta": 50000, "rotary_pct": 1.0,
           "sliding_window": 4096, "sliding_window_pattern": 4, "use_embedding_sharing": true,
           "use_gated_activation": true, "use_parallel_block": true, "use_parallel_embedding": true})",
       128, 32, 8, 5e4, RotaryForm::kInterleaved},
  };
  for (const auto& file : cases) {
    SCOPED_TRACE(file.name);
    const LayerSettings layer = Parse(file.json, "model.layers.0.", file.head_dim);
    EXPECT_EQ(layer.num_heads.value.value_or(0), file.heads);
    EXPECT_EQ(layer.num_kv_heads.value.value_or(0), file.kv_heads);
    ASSERT_TRUE(layer.rotary);
    EXPECT_EQ((*layer.rotary).base, file.base);
    EXPECT_EQ((*layer.rotary).form, file.form);
  }
}

TEST(PublishedConfigs, OtherValuesThanThoseOfTheCodeAreRefused) {
  for (const auto& [json, key] :
       {std::pair(R"("qwen2", "use_mrope": true)", "use_mrope"),
        std::pair(R"("phi3", "full_attn_mod": 2)", "full_attn"), std::pair(R"("gptj", "rotary": false)", "rotary"),
        std::pair(R"("llama", "rotary": true)", "rotary"),
        std::pair(R"("codegen", "scale_attn_weights": false)", "scale_attn_weights"),
        std::pair(R"("cohere2", "rotary_pct": 0.5)", "rotary_pct"),
        std::pair(R"("cohere2", "use_qk_norm": true)", "use_qk_norm"),
        std::pair(R"("cohere2", "position_embedding_type": "rope_neox")", "position_embedding_type")}) {
    EXPECT_THAT(Refusal(absl::StrCat(R"({"num_attention_heads": 4, "model_type": )", json, "}"), "layers.0.", {}, 64),
                HasSubstr(absl::StrCat("'", key)))
        << json;
  }
}

}  // namespace
}  // namespace attend::formats
