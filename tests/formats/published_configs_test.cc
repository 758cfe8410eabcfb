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

// The files of models of several parts say of a part what differs from the defaults of its type.
TEST(PublishedConfigs, NumbersOfHeadsThatTheyLeaveOutAreTheTypes) {
  const LayerSettings gemma = Parse(R"({"model_type": "gemma3", "mm_tokens_per_image": 256, "text_config": {
      "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {
      "model_type": "siglip_vision_model", "num_attention_heads": 16}})",
                                    "language_model.model.layers.5.self_attn.", 256);
  EXPECT_EQ(*gemma.num_heads, 8);
  EXPECT_EQ(gemma.num_heads.origin, "model type gemma3_text: num_attention_heads");
  EXPECT_EQ(*gemma.num_kv_heads, 4);
  EXPECT_EQ(*gemma.rotary->linear_factor, 8);
  const LayerSettings llava = Parse(R"({"model_type": "llava", "image_token_index": 32000, "text_config": {
      "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": 32064},
      "vision_config": {"hidden_size": 1024, "model_type": "clip_vision_model", "num_attention_heads": 16}})",
                                    "language_model.model.layers.0.self_attn.", 128);
  EXPECT_EQ(*llava.num_heads, 32);
  EXPECT_FALSE(llava.num_kv_heads);  // As many.
  const LayerSettings pixtral = Parse(R"({"model_type": "llava", "text_config": {"head_dim": 128, "hidden_size": 5120,
      "model_type": "mistral", "num_key_value_heads": 8, "rope_theta": 1e9, "sliding_window": null}})",
                                      "language_model.model.layers.0.self_attn.", 128);
  EXPECT_EQ(*pixtral.num_heads, 32);
  const std::string siglip = R"({"model_type": "siglip", "text_config": {"model_type": "siglip_text_model"},
                                 "vision_config": {"model_type": "siglip_vision_model"}})";
  EXPECT_EQ(*Parse(siglip, "text_model.encoder.layers.0.self_attn.", 64).num_heads, 12);
  EXPECT_EQ(*Parse(siglip, "vision_model.encoder.layers.0.self_attn.", 64).num_heads, 12);
}

// transformers makes a picture part of 14 heads where Aya Vision's file has none, and of 12 where it is empty.
TEST(PublishedConfigs, ThoseOfAPartThatIsNotThereAreNotItsTypes) {
  const std::string text = R"({"model_type": "aya_vision", "text_config": {"model_type": "cohere2"})";
  const std::string layer = "vision_tower.vision_model.encoder.layers.0.self_attn.";
  EXPECT_FALSE(Parse(text + "}", layer, 72).num_heads);
  EXPECT_EQ(*Parse(text + R"(, "vision_config": {}})", layer, 64).num_heads, 12);
}

// Keys that their types' code does not read.
TEST(PublishedConfigs, KeysOfOtherCodeChangeNothing) {
  const struct {
    const char* name;
    const char* json;
    const char* prefix;
    std::int64_t head_dim;
  } cases[] = {
      {"bert-base-chinese", R"({"model_type": "bert", "directionality": "bidi", "num_attention_heads": 12,
           "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "pooler_fc_size": 768,
           "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3, "pooler_size_per_head": 128,
           "pooler_type": "first_token_transform"})",
       "encoder.layer.0.", 64},
      {"albert-base-v2", R"({"model_type": "albert", "down_scale_factor": 1, "gap_size": 0, "inner_group_num": 1,
           "net_structure_type": 0, "num_attention_heads": 12, "num_hidden_groups": 1, "num_memory_blocks": 0})",
       "encoder.albert_layer_groups.0.albert_layers.0.", 64},
      {"kobart", R"({"model_type": "bart", "add_bias_logits": false, "add_final_layer_norm": false,
           "decoder_attention_heads": 16, "do_blenderbot_90_layernorm": false, "encoder_attention_heads": 16,
           "extra_pos_embeddings": 2, "is_encoder_decoder": true, "normalize_before": false,
           "normalize_embedding": true, "scale_embedding": false, "static_position_embeddings": false})",
       "encoder.layers.0.self_attn.", 48},
      {"opus-mt-en-de", R"({"model_type": "marian", "add_bias_logits": false, "add_final_layer_norm": false,
           "encoder_attention_heads": 8, "decoder_attention_heads": 8, "is_encoder_decoder": true,
           "normalize_before": false, "normalize_embedding": false, "scale_embedding": true,
           "static_position_embeddings": true})",
       "model.decoder.layers.0.self_attn.", 64},
      {"blenderbot-400M-distill", R"({"model_type": "blenderbot", "add_final_layer_norm": true,
           "decoder_attention_heads": 32, "do_blenderbot_90_layernorm": true, "encoder_attention_heads": 32,
           "extra_layer_norm": false, "is_encoder_decoder": true, "layernorm_variant": "prelayernorm",
           "normalize_before": true, "scale_embedding": true, "static_position_embeddings": false})",
       "model.encoder.layers.0.self_attn.", 40},
      {"bloom-560m", R"({"model_type": "bloom", "attention_softmax_in_fp32": true, "bias_dropout_fusion": true,
           "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": true, "n_head": 16, "offset_alibi": 100,
           "skip_bias_add": true, "skip_bias_add_qkv": false, "slow_but_exact": false})",
       "h.0.", 64},
      {"gemma-2-27b", R"({"model_type": "gemma2", "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
           "final_logit_softcapping": 30.0, "head_dim": 128, "num_attention_heads": 32, "num_key_value_heads": 16,
           "query_pre_attn_scalar": 144, "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096})",
       "model.layers.0.", 128},
      {"umt5-base", R"({"model_type": "umt5", "d_kv": 64, "is_encoder_decoder": true, "num_heads": 12,
           "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "scalable_attention": true})",
       "encoder.block.0.layer.0.SelfAttention.", 64},
      {"granite-4.0-h", R"({"model_type": "granitemoehybrid", "attention_multiplier": 0.015625,
           "layer_types": ["mamba", "attention"], "normalization_function": "rmsnorm", "num_attention_heads": 8,
           "num_key_value_heads": 8, "position_embedding_type": "nope", "rope_scaling": null, "rope_theta": 10000})",
       "model.layers.1.", 64},
      {"ModernBERT-large", R"({"model_type": "modernbert", "deterministic_flash_attn": false,
           "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_attention": 128,
           "local_rope_theta": 10000.0, "num_attention_heads": 16, "position_embedding_type": "absolute"})",
       "layers.0.", 64},
      {"mmBERT-base", R"({"model_type": "modernbert", "global_attn_every_n_layers": 3, "global_rope_theta": 160000,
           "local_attention": 128, "local_rope_theta": 160000, "num_attention_heads": 12,
           "position_embedding_type": "sans_pos"})",
       "layers.1.", 64},
      {"starcoder", R"({"model_type": "gpt_bigcode", "attention_softmax_in_fp32": true, "inference_runner": 0,
           "multi_query": true, "n_head": 48, "pad_key_length": true, "pre_allocate_kv_cache": false,
           "scale_attention_softmax_in_fp32": true, "scale_attn_weights": true})",
       "transformer.h.0.", 128},
      {"starcoder2-3b", R"({"model_type": "starcoder2", "attention_softmax_in_fp32": true, "num_attention_heads": 24,
           "num_key_value_heads": 2, "rope_theta": 999999.44, "scale_attention_softmax_in_fp32": true,
           "scale_attn_weights": true, "sliding_window": 4096})",
       "model.layers.0.", 128},
      {"wav2vec2-base", R"({"model_type": "wav2vec2", "do_stable_layer_norm": false, "num_attention_heads": 12,
           "mask_channel_length": 10, "mask_channel_min_space": 1, "mask_channel_other": 0.0, "mask_channel_prob": 0.0,
           "mask_channel_selection": "static", "mask_time_length": 10, "mask_time_min_space": 1, "mask_time_other": 0.0,
           "mask_time_selection": "static", "no_mask_channel_overlap": false, "no_mask_time_overlap": false})",
       "encoder.layers.0.", 64},
      {"SmolLM2-135M", R"({"model_type": "llama", "is_llama_config": true, "max_position_embeddings": 8192,
           "num_attention_heads": 9, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
           "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true})",
       "model.layers.0.", 64},
      {"LFM2-1.2B", R"({"model_type": "lfm2", "block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": 1.0,
           "block_mlp_init_scale": 1.0, "block_norm_eps": 1e-05, "block_out_init_scale": 1.0, "conv_L_cache": 3,
           "full_attn_idxs": [2, 5, 8, 10, 12, 14], "max_position_embeddings": 128000, "norm_eps": 1e-05,
           "num_attention_heads": 32, "num_heads": 32, "num_key_value_heads": 8, "rope_theta": 1000000.0,
           "use_pos_enc": true})",
       "model.layers.2.self_attn.", 64},
      {"Apertus-8B", R"({"model_type": "apertus", "hidden_act": "xielu", "max_position_embeddings": 65536,
           "num_attention_heads": 32, "num_key_value_heads": 8, "post_norm": false, "qk_norm": true,
           "rms_norm_eps": 1e-05, "rope_theta": 12000000, "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0,
           "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3",
           "type": "llama3"}})",
       "model.layers.0.self_attn.", 128},
      {"ERNIE-4.5-300B-A47B", R"({"model_type": "ernie4_5_moe", "max_position_embeddings": 131072,
           "moe_gate": "topk_fused", "moe_layer_start_index": 3, "num_attention_heads": 64, "num_key_value_heads": 8,
           "rms_norm_eps": 1e-05, "rope_theta": 500000.0})",
       "model.layers.0.self_attn.", 128},
  };
  for (const auto& file : cases) {
    EXPECT_EQ(Refusal(file.json, file.prefix, {}, file.head_dim), "") << file.name;
  }
}

TEST(PublishedConfigs, OtherValuesThanThoseOfTheCodeAreRefused) {
  for (const auto& [json, key] :
       {std::pair(R"("qwen2", "use_mrope": true)", "use_mrope"),
        std::pair(R"("phi3", "full_attn_mod": 2)", "full_attn_mod"),
        std::pair(R"("gptj", "rotary": false)", "rotary"),
        std::pair(R"("llama", "rotary": true)", "rotary"),
        std::pair(R"("codegen", "scale_attn_weights": false)", "scale_attn_weights"),
        std::pair(R"("starcoder2", "scale_attn_weights": false)", "scale_attn_weights"),
        std::pair(R"("llama", "scale_attn_weights": true)", "scale_attn_weights"),
        std::pair(R"("llama", "rope_interleaved": true)", "rope_interleaved"),
        std::pair(R"("mistral", "rope_interleaved": false)", "rope_interleaved"),
        std::pair(R"("apertus", "rope_scaling": {"rope_type": "default"}, "qk_norm": false)", "qk_norm"),
        std::pair(R"("apertus", "rope_scaling": {"rope_type": "default"}, "post_norm": true)", "post_norm"),
        std::pair(R"("albert", "down_scale_factor": 2)", "down_scale_factor"),
        std::pair(R"("blenderbot", "extra_layer_norm": true)", "extra_layer_norm"),
        std::pair(R"("blenderbot", "layernorm_variant": "xlm")", "layernorm_variant"),
        std::pair(R"("bloom", "offset_alibi": 0)", "offset_alibi"),
        std::pair(R"("bloom", "skip_bias_add_qkv": true)", "skip_bias_add_qkv"),
        std::pair(R"("granitemoehybrid", "normalization_function": "layernorm")", "normalization_function"),
        std::pair(R"("modernbert", "position_embedding_type": "relative_key")", "position_embedding_type"),
        std::pair(R"("umt5", "scalable_attention": false)", "scalable_attention"),
        std::pair(R"("cohere2", "rotary_pct": 0.5)", "rotary_pct"),
        std::pair(R"("cohere2", "use_qk_norm": true)", "use_qk_norm"),
        std::pair(R"("cohere2", "position_embedding_type": "rope_neox")", "position_embedding_type")}) {
    EXPECT_THAT(
        Refusal(absl::StrCat(R"({"num_attention_heads": 4, "model_type": )", json, "}"), "decoder.layers.0.", {}, 64),
        HasSubstr(absl::StrCat("'", key, "' is set")))
        << json;
  }
}

// A file made of gemma-2-27b for longer texts has a window of 32768 and kept the other name's 4096.
TEST(PublishedConfigs, ASecondNameMustHaveTheNumberThatTheCodeReads) {
  const auto refusal = [](const char* json) {
    return Refusal(absl::StrCat(R"({"num_attention_heads": 4, "model_type": )", json, "}"), "layers.0.", {}, 64);
  };
  EXPECT_EQ(refusal(R"("gemma2", "sliding_window": 512, "sliding_window_size": 512)"), "");
  EXPECT_EQ(refusal(R"("gemma2", "sliding_window_size": 4096)"), "");
  for (const char* const json :
       {R"("gemma2", "sliding_window": 32768, "sliding_window_size": 4096)",
        R"("gemma2", "sliding_window": null, "sliding_window_size": 4096)", R"("gemma2", "sliding_window_size": 512)",
        R"("mistral", "sliding_window": 4096, "sliding_window_size": 4096)"}) {
    EXPECT_THAT(refusal(json), HasSubstr("'sliding_window_size' is set")) << json;
  }
  EXPECT_EQ(refusal(R"("lfm2", "block_norm_eps": 1e-5)"), "");
  EXPECT_THAT(refusal(R"("lfm2", "block_norm_eps": 1e-6)"), HasSubstr("'block_norm_eps' is set"));
}

}  // namespace
}  // namespace attend::formats
