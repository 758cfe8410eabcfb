// What null says in a config.json: to Python's code a number that is not there, false, or none, and seldom what the
// code has when the key is missing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::HasSubstr;

std::string OfType(const std::string& type, const std::string& more) {
  return R"({"model_type": ")" + type + "\", " + more + "}";
}

TEST(NullKeys, WhereTheCodeComputesWithANumberNullIsRefused) {
  struct Case {
    const char* type;
    const char* key;
    const char* more = "";
    const char* prefix = "layers.0.";
  };
  const Case cases[] = {
      {"mixtral", "rope_theta"},
      {"gpt_neox", "rotary_emb_base"},
      {"gpt_neox", "rotary_pct"},
      {"phi", "partial_rotary_factor"},
      {"gemma3_text", "rope_local_base_freq"},
      {"modernbert", "global_rope_theta"},
      {"modernbert", "local_attention", "", "layers.1."},
      {"modernbert", "global_attn_every_n_layers"},
      {"modernbert-decoder", "local_attention", R"("local_rope_theta": 160000.0, )", "layers.1."},
      {"gemma3_text", "sliding_window_pattern"},
      {"gpt_neo", "window_size", R"("attention_layers": ["local"], )"},
      {"smollm3", "no_rope_layer_interval"},
      {"gemma2", "query_pre_attn_scalar"},
      {"qwen2", "max_window_layers", R"("use_sliding_window": true, )"},
      {"qwen3", "rms_norm_eps"},
      {"dia_decoder", "cross_num_attention_heads", "", "layers.0.cross_attention."},
      {"dia_decoder", "cross_num_key_value_heads", "", "layers.0.cross_attention."},
      {"moonshine", "decoder_num_attention_heads", "", "decoder.layers.0."},
      {"pop2piano", "num_heads", R"("num_attention_heads": 4, )", "encoder.block.0."},
      {"chatglm", "multi_query_group_num", R"("multi_query_attention": true, )"},
  };
  for (const Case& one : cases) {
    const std::string json = OfType(one.type, one.more + std::string("\"") + one.key + "\": null");
    EXPECT_THAT(Refusal(json, one.prefix, {}, 64), HasSubstr("'" + std::string(one.key) + "' is null, and the code of"))
        << json;
  }
}

TEST(NullKeys, WhatVersionsDifferInIsRefusedAsNullToo) {
  struct Case {
    const char* type;
    const char* key;
    const char* more = "";
  };
  const Case cases[] = {{"olmo3", "rope_theta"},
                        {"gpt_oss", "rope_scaling"},
                        {"cwm", "layer_types", R"("rope_scaling": {"rope_type": "default"}, )"},
                        {"gpt_neo", "attention_types"},
                        {"cohere2_moe", "mlp_layer_types", R"("layer_types": ["full_attention"], )"},
                        {"nemotron3_diarization_audio", "partial_rotary_factor"}};
  for (const Case& one : cases) {
    const std::string json = OfType(one.type, one.more + std::string("\"") + one.key + "\": null");
    EXPECT_THAT(Refusal(json, "layers.0.", {}, 64),
                HasSubstr("'" + std::string(one.key) + "' is null, and what it stands for depends on the version"))
        << json;
  }
  EXPECT_THAT(Refusal(OfType("gpt_oss", R"("rope_scaling": {})"), "layers.0."), HasSubstr("'rope_scaling' is empty"));
  EXPECT_EQ(Refusal(OfType("gpt_oss", R"("rope_scaling": {"rope_type": "default"})"), "layers.0."), "");
}

TEST(NullKeys, NoneToTheCodeIsNone) {
  EXPECT_EQ(Left(Parse(OfType("mistral", R"("sliding_window": null)"))), -1);
  EXPECT_FALSE(Parse(OfType("mistral", R"("num_key_value_heads": null)")).num_kv_heads);
  EXPECT_FALSE(Parse(OfType("gemma2", R"("attn_logit_softcapping": null)")).softcap);
  EXPECT_EQ(*Parse(OfType("falcon_h1", R"("key_multiplier": null, "rope_theta": 1e4)"), "layers.0.", 16).scale, 0.25);
  EXPECT_EQ(Parse(OfType("modernbert", R"("local_rope_theta": null)"), "layers.1.").rotary->base, 160000);
  // The number of layers with a window is not read where no layer has one.
  EXPECT_EQ(Left(Parse(OfType("qwen2", R"("max_window_layers": null)"))), -1);
  EXPECT_EQ(Left(Parse(OfType("qwen2_moe", R"("layer_types": null)"))), -1);
  // A base that is not read.
  EXPECT_EQ(Parse(OfType("llama", R"("rope_theta": null, "rope_parameters": {"rope_theta": 5e5})")).rotary->base, 5e5);
}

// allenai/Olmo-Hybrid-7B has {"rope_theta": null}, and its fine-tuned ones the type beside it.
TEST(NullKeys, TheBaseOfOlmoHybridIsNullWhereItHasNoRotaryEmbedding) {
  const auto form = [](const std::string& parameters) {
    return Parse(OfType("olmo_hybrid", R"("rope_parameters": )" + parameters), "layers.3.self_attn.", 64).rotary->form;
  };
  EXPECT_EQ(form(R"({"rope_theta": null})"), RotaryForm::kNone);
  EXPECT_EQ(form(R"({"rope_theta": null, "rope_type": "default"})"), RotaryForm::kNone);
  EXPECT_EQ(form(R"({"rope_theta": null}, "rope_theta": 1e4)"), RotaryForm::kNone);
  EXPECT_EQ(form(R"({"rope_theta": 5e5})"), RotaryForm::kHalf);
  // Its documentation says that there is none, and its code has one of the base 10000.
  EXPECT_THAT(Refusal(OfType("olmo_hybrid", R"("rope_parameters": null)"), "layers.3.self_attn.", {}, 64),
              HasSubstr("'rope_parameters' is null, and what it stands for"));
  EXPECT_THAT(Refusal(OfType("llama", R"("rope_parameters": {"rope_theta": null})"), "layers.0.", {}, 64),
              HasSubstr("'rope_theta' is null in rope_parameters"));
}

TEST(NullKeys, FalseToTheCodeIsFalse) {
  EXPECT_EQ(*Parse(OfType("gpt2", R"("n_head": 2, "scale_attn_weights": null)")).scale, 1);
  EXPECT_THAT(Refusal(OfType("mpt", R"("n_heads": 4, "attn_config": {"alibi": null})")),
              HasSubstr("which MPT's own code follows and transformers does not"));
  EXPECT_FALSE(Parse(OfType("gpt_bigcode", R"("n_head": 4, "multi_query": null)")).num_kv_heads);
}

TEST(NullKeys, AMaskThatVersionsReadDifferentlyIsRefused) {
  const std::string json = OfType("qwen2", R"("is_causal": null)");
  EXPECT_THAT(Refusal(json), HasSubstr("'is_causal' is null"));
  CallerSettings caller;
  caller.causal = Causality::kBottomRight;
  EXPECT_EQ(Refusal(json, "", caller), "");
  EXPECT_EQ(*Parse(OfType("bert", R"("is_causal": null, "is_decoder": null)")).causal, Causality::kNone);
}

TEST(NullKeys, ALongRopeNeedsItsFactorOrItsLength) {
  const auto json = [](const std::string& beside, const std::string& within) {
    return OfType("llama", R"("original_max_position_embeddings": 8)" + beside +
                               R"(, "rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1],
                               "long_factor": [2, 2], "original_max_position_embeddings": 8)" +
                               within + "}");
  };
  const auto factor = [&](const std::string& beside, const std::string& within) {
    return Parse(json(beside, within), "layers.0.", 4).rotary->attention_factor;
  };
  for (const char* const none : {"", R"(, "factor": null)"}) {
    EXPECT_THAT(Refusal(json("", none), "layers.0.", {}, 4), HasSubstr("'max_position_embeddings' is needed")) << none;
    EXPECT_DOUBLE_EQ(factor(R"(, "max_position_embeddings": 32)", none), std::sqrt(1 + std::log(4.0) / std::log(8.0)));
  }
  EXPECT_DOUBLE_EQ(factor("", R"(, "factor": 4)"), std::sqrt(1 + std::log(4.0) / std::log(8.0)));
}

TEST(NullKeys, YarnThatTruncatesNothingDoesNotTruncate) {
  const auto frequencies = [](const std::string& more) {
    return Parse(OfType("qwen2", R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                                    "original_max_position_embeddings": 64)" +
                                     more + "}"),
                 "layers.0.", 16)
        .rotary->frequencies;
  };
  EXPECT_EQ(frequencies(R"(, "truncate": null)"), frequencies(R"(, "truncate": false)"));
  EXPECT_NE(frequencies(R"(, "truncate": null)"), frequencies(""));
}

// Neither version of transformers sees a difference between this null and no key.
TEST(NullKeys, ParametersThatAreNullAreNotThere) {
  const std::string gemma = R"("rope_parameters": null, "rope_local_base_freq": 20000.0, "rope_theta": 1e6,
                               "rope_scaling": {"rope_type": "linear", "factor": 8.0})";
  const LayerSettings sliding = Parse(OfType("gemma3_text", gemma), "layers.0.");
  EXPECT_EQ(sliding.rotary->base, 20000);
  EXPECT_FALSE(sliding.rotary->linear_factor);
  const LayerSettings full = Parse(OfType("gemma3_text", gemma), "layers.5.");
  EXPECT_EQ(full.rotary->base, 1e6);
  EXPECT_EQ(full.rotary->linear_factor, 8);
  EXPECT_EQ(
      Refusal(OfType("modernbert-decoder", R"("rope_parameters": null, "local_rope_theta": 160000.0)"), "layers.1."),
      "");
  // Without sections for pictures nobody knows what is interleaved.
  EXPECT_THAT(Refusal(OfType("llama", R"("rope_scaling": {"mrope_section": null, "interleaved": true})"), ""),
              HasSubstr("the key 'interleaved'"));
}

}  // namespace
}  // namespace attend::formats
