// Guards what a config.json is taken to mean, by the files of real models, cut to what matters.
#include "server/layers/hugging_face_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace attend::server {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;

// Ends the test when it is refused.
v1::LayerConfig Parse(const std::string& json, const std::string& prefix = "model.layers.0.") {
  const absl::StatusOr<v1::LayerConfig> config = ParseHuggingFaceConfig(json, prefix, {});
  EXPECT_TRUE(config.ok()) << json << ": " << config.status();
  return config.ok() ? *config : v1::LayerConfig();
}

std::string Refusal(const std::string& json, const std::string& prefix = "", const v1::LayerConfig& caller = {}) {
  return std::string(ParseHuggingFaceConfig(json, prefix, caller).status().message());
}

TEST(HuggingFaceConfig, BertHasHeadsAndNothingElse) {
  const v1::LayerConfig config = Parse(
      R"({"model_type": "bert", "architectures": ["BertModel"], "num_attention_heads": 12, "hidden_size": 384,
          "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"})");
  EXPECT_EQ(config.num_heads(), 12);
  EXPECT_EQ(config.num_kv_heads(), 0);
  EXPECT_FALSE(config.has_rotary_embedding());
  EXPECT_EQ(config.options().causal(), v1::CAUSAL_MODE_UNSPECIFIED);
}

TEST(HuggingFaceConfig, Llama3HasGroupsCausalityAndScaledPositions) {
  const v1::LayerConfig config = Parse(
      R"({"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 2048,
          "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": null,
          "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                           "original_max_position_embeddings": 8192, "rope_type": "llama3"}})");
  EXPECT_EQ(config.num_heads(), 32);
  EXPECT_EQ(config.num_kv_heads(), 8);
  EXPECT_EQ(config.options().causal(), v1::CAUSAL_MODE_BOTTOM_RIGHT);
  EXPECT_FALSE(config.options().has_sliding_window_left());
  const v1::RotaryEmbedding& rotary = config.rotary_embedding();
  EXPECT_EQ(rotary.form(), v1::ROTARY_FORM_HALF);
  EXPECT_EQ(rotary.base(), 500000);
  EXPECT_EQ(rotary.dim(), 0);
  EXPECT_EQ(rotary.llama3().factor(), 32);
  EXPECT_EQ(rotary.llama3().low_freq_factor(), 1);
  EXPECT_EQ(rotary.llama3().high_freq_factor(), 4);
  EXPECT_EQ(rotary.llama3().original_context_length(), 8192);
  EXPECT_THAT(config.norm_epsilon(), FloatEq(1e-5F));
}

TEST(HuggingFaceConfig, ALlamaThatDoesNotMentionRotaryEmbeddingsHasThem) {
  EXPECT_EQ(Parse(R"({"model_type": "llama"})").rotary_embedding().base(), 10000);
  EXPECT_FALSE(Parse(R"({"model_type": "opt"})").has_rotary_embedding());
}

TEST(HuggingFaceConfig, ParametersMayStandTogether) {  // As transformers 5 writes them.
  const v1::RotaryEmbedding rotary = Parse(R"({"model_type": "llama", "num_attention_heads": 4, "head_dim": 10,
                "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 7e4, "partial_rotary_factor": 0.4}})")
                                         .rotary_embedding();
  EXPECT_EQ(rotary.base(), 70000);
  EXPECT_EQ(rotary.linear_factor(), 4);
  EXPECT_EQ(rotary.dim(), 4);
}

TEST(HuggingFaceConfig, SharesOfAHeadAreTurned) {
  EXPECT_EQ(Parse(R"({"model_type": "gpt_neox", "num_attention_heads": 8, "hidden_size": 512, "rotary_pct": 0.25})")
                .rotary_embedding()
                .dim(),
            16);
  EXPECT_EQ(Parse(R"({"model_type": "phi", "num_attention_heads": 4, "head_dim": 32, "partial_rotary_factor": 0.5})")
                .rotary_embedding()
                .dim(),
            16);
  const v1::RotaryEmbedding gptj =
      Parse(R"({"model_type": "gptj", "n_head": 16, "n_embd": 4096, "rotary_dim": 64})").rotary_embedding();
  EXPECT_EQ(gptj.dim(), 64);
  EXPECT_EQ(gptj.form(), v1::ROTARY_FORM_INTERLEAVED);
  EXPECT_THAT(Refusal(R"({"model_type": "phi", "partial_rotary_factor": 0.5})"), HasSubstr("partial_rotary_factor"));
}

TEST(HuggingFaceConfig, UnknownScalingIsRefusedUnlessTheCallerKnowsBetter) {
  const std::string json = R"({"model_type": "llama", "rope_scaling": {"type": "yarn", "factor": 4}})";
  EXPECT_THAT(Refusal(json), HasSubstr("'rope_scaling' has the type 'yarn'; default, linear and llama3 are known"));
  v1::LayerConfig caller;
  caller.mutable_rotary_embedding()->set_base(5);
  EXPECT_EQ(Refusal(json, "", caller), "");
}

TEST(HuggingFaceConfig, WindowsCountTheQueryItself) {
  EXPECT_EQ(Parse(R"({"model_type": "mistral", "sliding_window": 4096})").options().sliding_window_left(), 4095);
  EXPECT_FALSE(Parse(R"({"model_type": "qwen2", "sliding_window": 9})").options().has_sliding_window_left());
  const std::string qwen =
      R"({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": true, "max_window_layers": 2})";
  EXPECT_FALSE(Parse(qwen, "model.layers.1.").options().has_sliding_window_left());
  EXPECT_EQ(Parse(qwen, "model.layers.2.self_attn.").options().sliding_window_left(), 8);
  EXPECT_THAT(Refusal(R"({"model_type": "mistral", "sliding_window": 0})"), HasSubstr("'sliding_window' must be"));
}

TEST(HuggingFaceConfig, WhichLayersSlideIsReadFromThePrefix) {
  const std::string types = R"({"model_type": "x", "sliding_window": 8,
                                "layer_types": ["sliding_attention", "full_attention"]})";
  EXPECT_EQ(Parse(types, "layers.0").options().sliding_window_left(), 7);
  EXPECT_FALSE(Parse(types, "layers.1").options().has_sliding_window_left());
  EXPECT_THAT(Refusal(types, "layers.2"), HasSubstr("'layer_types' has fewer entries"));
  EXPECT_THAT(Refusal(types, "layer"), HasSubstr("'layer_types' differs between layers, and the prefix has no number"));
  v1::LayerConfig caller;
  caller.mutable_options()->set_sliding_window_left(3);
  EXPECT_EQ(Refusal(types, "layer", caller), "");

  const std::string gemma2 = R"({"model_type": "gemma2", "sliding_window": 8, "query_pre_attn_scalar": 256,
                                 "attn_logit_softcapping": 50.0})";
  EXPECT_EQ(Parse(gemma2, "layers.0").options().sliding_window_left(), 7);
  EXPECT_FALSE(Parse(gemma2, "layers.1").options().has_sliding_window_left());
  EXPECT_EQ(Parse(gemma2).options().softcap(), 50);
  EXPECT_EQ(Parse(gemma2).options().scale(), 1.0F / 16);
}

TEST(HuggingFaceConfig, Gemma3HasTwoBasesAndNormsThatAddOne) {
  const std::string gemma3 =
      R"({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "num_attention_heads": 8,
          "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
          "rope_scaling": {"rope_type": "linear", "factor": 8}}})";
  const v1::LayerConfig local = Parse(gemma3, "language_model.layers.4."), global = Parse(gemma3, "layers.5.");
  EXPECT_EQ(local.num_heads(), 8);
  EXPECT_TRUE(local.norm_adds_one());
  EXPECT_EQ(local.options().sliding_window_left(), 511);
  EXPECT_EQ(local.rotary_embedding().base(), 10000);
  EXPECT_FALSE(local.rotary_embedding().has_linear_factor());
  EXPECT_FALSE(global.options().has_sliding_window_left());
  EXPECT_EQ(global.rotary_embedding().base(), 1000000);
  EXPECT_EQ(global.rotary_embedding().linear_factor(), 8);
}

TEST(HuggingFaceConfig, EncoderDecodersAreCausalInTheirDecodersSelfAttention) {
  const std::string t5 = R"({"model_type": "t5", "num_heads": 6, "d_kv": 64, "is_encoder_decoder": true})";
  const auto causal = [&](const std::string& prefix) { return Parse(t5, prefix).options().causal(); };
  EXPECT_EQ(causal("encoder.block.0."), v1::CAUSAL_MODE_UNSPECIFIED);
  EXPECT_EQ(causal("decoder.block.0."), v1::CAUSAL_MODE_BOTTOM_RIGHT);
  EXPECT_EQ(causal("decoder.block.0.layer.1.EncDecAttention."), v1::CAUSAL_MODE_UNSPECIFIED);
  EXPECT_EQ(causal("decoder.block.0.layer.1."), v1::CAUSAL_MODE_UNSPECIFIED);
  EXPECT_EQ(Parse(t5).options().scale(), 1);
  EXPECT_EQ(Parse(t5).num_heads(), 6);
  const std::string bart = R"({"model_type": "bart", "is_encoder_decoder": true, "decoder_attention_heads": 3,
                               "encoder_attention_heads": 2})";
  EXPECT_EQ(Parse(bart, "model.decoder.layers.0.self_attn").num_heads(), 3);
  EXPECT_EQ(Parse(bart, "model.encoder.layers.0.").num_heads(), 2);
}

TEST(HuggingFaceConfig, Gpt2MayScaleByTheLayer) {
  const std::string json =
      R"({"model_type": "gpt2", "n_head": 2, "n_embd": 8, "scale_attn_by_inverse_layer_idx": true})";
  EXPECT_FLOAT_EQ(Parse(json, "h.3.").options().scale(), 0.5F / 4);
  EXPECT_THAT(Refusal(json, "h"), HasSubstr("scale_attn_by_inverse_layer_idx"));
  EXPECT_FALSE(Parse(R"({"model_type": "gpt2", "n_head": 2, "n_embd": 8})").options().has_scale());
}

TEST(HuggingFaceConfig, AlibiHasTheSlopesOfItsPaper) {
  const auto slopes = [](const std::string& json) {
    const v1::LayerConfig config = Parse(json);
    const auto& values = config.options().alibi_slopes().values();
    return std::vector<float>(values.begin(), values.end());
  };
  EXPECT_THAT(slopes(R"({"model_type": "bloom", "n_head": 4})"), ElementsAre(0.25, 0.0625, 0.015625, 0.00390625));
  EXPECT_THAT(slopes(R"({"model_type": "bloom", "n_head": 3})"), ElementsAre(0.0625, 0.00390625, 0.25));
  EXPECT_THAT(slopes(R"({"model_type": "mpt", "n_heads": 3})"), ElementsAre(0.0625, 0.00390625, 0.25));
  EXPECT_THAT(slopes(R"({"model_type": "mpt", "n_heads": 3, "attn_config": {"alibi": false}})"), ElementsAre());
  EXPECT_THAT(Refusal(R"({"model_type": "bloom"})"), HasSubstr("'n_head'"));
}

TEST(HuggingFaceConfig, FalconsKeyHeadsDependOnItsAge) {
  EXPECT_EQ(Parse(R"({"model_type": "falcon", "num_attention_heads": 71, "multi_query": true, "num_kv_heads": 71})")
                .num_kv_heads(),
            1);
  EXPECT_EQ(Parse(R"({"model_type": "falcon", "new_decoder_architecture": true, "num_kv_heads": 8})").num_kv_heads(),
            8);
}

TEST(HuggingFaceConfig, WhatIsNoConfigIsRefused) {
  for (const char* const text : {"", "[]", "{", "3", "\"x\"", "null", "{\"a\": \xff}"}) {
    EXPECT_THAT(Refusal(text), HasSubstr("not a JSON object")) << text;
  }
  EXPECT_THAT(Refusal(R"({"num_attention_heads": "12"})"), HasSubstr("'num_attention_heads' is not a whole number"));
  EXPECT_THAT(Refusal(R"({"num_attention_heads": -1})"), HasSubstr("'num_attention_heads'"));
  EXPECT_THAT(Refusal(R"({"num_attention_heads": 1e300})"), HasSubstr("'num_attention_heads'"));
  EXPECT_THAT(Refusal(R"({"num_attention_heads": 18446744073709551615})"), HasSubstr("'num_attention_heads'"));
  EXPECT_THAT(Refusal(R"({"rope_theta": []})"), HasSubstr("'rope_theta' is not a number"));
  EXPECT_THAT(Refusal(R"({"model_type": 7})"), HasSubstr("'model_type' is not a string"));
  EXPECT_THAT(Refusal(R"({"is_decoder": 1})"), HasSubstr("'is_decoder' is neither true nor false"));
  EXPECT_THAT(Refusal(R"({"position_embedding_type": "relative_key"})"),
              HasSubstr("is relative, which is not supported"));
  EXPECT_EQ(Refusal(R"({"architectures": 3, "layer_types": {}, "rope_scaling": "x", "text_config": []})"), "");
  EXPECT_THAT(Refusal(std::string(100000, '[')), HasSubstr("not a JSON object"));
  EXPECT_THAT(Refusal(R"({"model_type": "mpt", "n_heads": 4, "attn_config": {"alibi_bias_max": "8"}})"),
              HasSubstr("'alibi_bias_max' is not a number"));
  EXPECT_THAT(Refusal(R"({"clip_qkv": 8.0})"), HasSubstr("'clip_qkv' is set"));
  EXPECT_THAT(Refusal(R"({"attn_config": {"clip_qkv": 8}})"), HasSubstr("'clip_qkv' is set"));
  EXPECT_EQ(Refusal(R"({"clip_qkv": null, "attn_config": {"clip_qkv": null}})"), "");
}

// Valid JSON, and small enough to be read; copying it would take more stack than there is.
TEST(HuggingFaceConfig, DeepNestingIsRefusedAndDoesNotOverflowTheStack) {
  const auto nested = [](int depth) {
    return R"({"x": )" + std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']') + "}";
  };
  EXPECT_THAT(Refusal(nested(400000)), HasSubstr("not a JSON object"));
  EXPECT_THAT(Refusal(nested(65)), HasSubstr("not a JSON object"));
  EXPECT_EQ(Refusal(nested(60)), "");
}

TEST(HuggingFaceConfig, APrefixesNumberThatIsNoLayersIsNotCounted) {
  EXPECT_THAT(Refusal(R"({"model_type": "gemma3", "sliding_window": 4})", "layers.9223372036854775807."),
              HasSubstr("no number that says which one"));
}

}  // namespace
}  // namespace attend::server
