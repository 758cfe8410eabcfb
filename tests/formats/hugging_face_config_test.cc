// Guards what a config.json is taken to mean, by the files of real models, cut to what matters.
#include "formats/hugging_face/hugging_face_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/hugging_face/model_rules.h"
#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(HuggingFaceConfig, BertHasHeadsAndNothingElse) {
  const LayerSettings config = Parse(
      R"({"model_type": "bert", "architectures": ["BertModel"], "num_attention_heads": 12, "hidden_size": 384,
          "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"})");
  EXPECT_EQ(*config.num_heads, 12);
  EXPECT_EQ(config.num_heads.origin, "config.json: num_attention_heads");
  EXPECT_FALSE(config.num_kv_heads);
  EXPECT_EQ(config.rotary->form, RotaryForm::kNone);
  EXPECT_EQ(*config.causal, Causality::kNone);
  EXPECT_EQ(config.causal.origin, "model type bert");
}

TEST(HuggingFaceConfig, Llama3HasGroupsCausalityAndScaledPositions) {
  const LayerSettings config = Parse(
      R"({"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 2048,
          "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": null,
          "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                           "original_max_position_embeddings": 8192, "rope_type": "llama3"}})");
  EXPECT_EQ(*config.num_heads, 32);
  EXPECT_EQ(*config.num_kv_heads, 8);
  EXPECT_EQ(*config.causal, Causality::kBottomRight);
  EXPECT_EQ(Left(config), -1);
  const Rotary& rotary = *config.rotary;
  EXPECT_EQ(rotary.form, RotaryForm::kHalf);
  EXPECT_EQ(rotary.base, 500000);
  EXPECT_EQ(rotary.dim, 0);
  EXPECT_EQ(rotary.llama3->factor, 32);
  EXPECT_EQ(rotary.llama3->low_freq_factor, 1);
  EXPECT_EQ(rotary.llama3->high_freq_factor, 4);
  EXPECT_EQ(rotary.llama3->original_context_length, 8192);
}

TEST(HuggingFaceConfig, AMissingKeyIsWhatTransformersTakesOrIsRefused) {
  EXPECT_EQ(*Parse(R"({"model_type": "mistral", "num_attention_heads": 32})").num_kv_heads, 8);
  EXPECT_EQ(Left(Parse(R"({"model_type": "mistral"})")), 4095);
  EXPECT_EQ(*Parse(R"({"model_type": "gemma2"})").softcap, 50);
  EXPECT_EQ(*Parse(R"({"model_type": "gemma2"})").scale, 1.0 / 16);
  // transformers 4 takes 10000 for Cohere's base, transformers 5 takes 500000.
  EXPECT_THAT(Refusal(R"({"model_type": "cohere"})"), HasSubstr("'rope_theta' is missing"));
  EXPECT_THAT(Refusal(R"({"model_type": "gpt_oss", "rope_theta": 150000})", "layers.1."),
              HasSubstr("'rope_scaling' is missing"));
}

TEST(HuggingFaceConfig, WindowsCountTheQueryItself) {
  EXPECT_EQ(Left(Parse(R"({"model_type": "mistral", "sliding_window": 4096})")), 4095);
  EXPECT_EQ(Left(Parse(R"({"model_type": "qwen2", "sliding_window": 9})")), -1);
  const std::string qwen =
      R"({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": true, "max_window_layers": 2})";
  EXPECT_EQ(Left(Parse(qwen, "model.layers.1.")), -1);
  EXPECT_EQ(Left(Parse(qwen, "model.layers.2.self_attn.")), 8);
  EXPECT_THAT(Refusal(R"({"model_type": "mistral", "sliding_window": 0})"), HasSubstr("'sliding_window' must be"));
  EXPECT_EQ(Left(Parse(R"({"model_type": "mistral", "sliding_window": null})")), -1);
  // Llama's code has no window.
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "sliding_window": 8})"), HasSubstr("'sliding_window' is set"));
}

TEST(HuggingFaceConfig, WhichLayersSlideIsReadFromThePrefix) {
  const std::string types = R"({"model_type": "gemma2", "sliding_window": 8,
                                "layer_types": ["sliding_attention", "full_attention"]})";
  EXPECT_EQ(Left(Parse(types, "layers.0")), 7);
  EXPECT_EQ(Left(Parse(types, "layers.1")), -1);
  EXPECT_THAT(Refusal(types, "layers.2"), HasSubstr("'layer_types' has fewer entries"));
  EXPECT_THAT(Refusal(types, "layer"), HasSubstr("'layer_types' differs between layers, and the prefix has no number"));
  CallerSettings caller;
  caller.window = caller.rotary = true;
  EXPECT_EQ(Refusal(types, "layer", caller), "");
  EXPECT_THAT(Refusal(R"({"model_type": "gemma2", "layer_types": ["chunked_attention"]})", "layers.0"),
              HasSubstr("neither full_attention nor sliding_attention"));

  const std::string gemma2 = R"({"model_type": "gemma2", "sliding_window": 8, "query_pre_attn_scalar": 256,
                                 "attn_logit_softcapping": 50.0})";
  EXPECT_EQ(Left(Parse(gemma2, "layers.0")), 7);
  EXPECT_EQ(Left(Parse(gemma2, "layers.1")), -1);
  EXPECT_EQ(*Parse(gemma2).softcap, 50);
  EXPECT_EQ(*Parse(gemma2).scale, 1.0 / 16);
}

TEST(HuggingFaceConfig, WhereAllLayersAreAlikeNoNumberIsNeeded) {
  const auto gemma2 = [](const std::string& type) {
    return R"({"model_type": "gemma2", "sliding_window": 8, "layer_types": [")" + type + R"(", ")" + type + R"("]})";
  };
  EXPECT_EQ(Left(Parse(gemma2("sliding_attention"), "self_attn.")), 7);
  EXPECT_EQ(Left(Parse(gemma2("full_attention"), "self_attn.")), -1);
}

TEST(HuggingFaceConfig, Gemma3HasTwoBasesAndNormsThatAddOne) {
  const std::string gemma3 =
      R"({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "num_attention_heads": 8,
          "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
          "rope_scaling": {"rope_type": "linear", "factor": 8}}})";
  const LayerSettings local = Parse(gemma3, "language_model.layers.4."), global = Parse(gemma3, "layers.5.");
  EXPECT_EQ(*local.num_heads, 8);
  EXPECT_TRUE(*local.norm_adds_one);
  EXPECT_EQ(*local.norm_epsilon, 1e-6);
  EXPECT_EQ(Left(local), 511);
  EXPECT_EQ(local.rotary->base, 10000);
  EXPECT_FALSE(local.rotary->linear_factor);
  EXPECT_EQ(Left(global), -1);
  EXPECT_EQ(global.rotary->base, 1000000);
  EXPECT_EQ(global.rotary->linear_factor, 8);
  // As transformers 5 writes it.
  const std::string five = R"({"model_type": "gemma3_text", "sliding_window": 512, "rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
      "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}})";
  EXPECT_EQ(Parse(five, "layers.0.").rotary->base, 10000);
  EXPECT_EQ(Parse(five, "layers.5.").rotary->linear_factor, 8);
}

TEST(HuggingFaceConfig, BidirectionalVariantsAreNotCausal) {
  EXPECT_EQ(*Parse(R"({"model_type": "qwen2", "is_causal": false})").causal, Causality::kNone);
  const std::string gemma =
      R"({"model_type": "gemma3_text", "use_bidirectional_attention": true, "sliding_window": 512})";
  EXPECT_EQ(*Parse(gemma, "layers.5.").causal, Causality::kNone);
  EXPECT_EQ(Left(Parse(gemma, "layers.5.")), -1);
  EXPECT_EQ(Left(Parse(gemma, "layers.0.")), 256);
  EXPECT_EQ(*Parse(gemma, "layers.0.").window_right, 256);
  EXPECT_THAT(Refusal(R"({"model_type": "mistral", "is_causal": false, "sliding_window": 8})"),
              HasSubstr("'sliding_window' is set in a model that is not causal"));
}

TEST(HuggingFaceConfig, AWindowIsThatOfTheMaskThatTheCallerSays) {
  const auto parse = [](const std::string& json, Causality causal) {
    CallerSettings caller;
    caller.causal = causal;
    const auto layer = ParseHuggingFaceConfig(json, "model.layers.0.", caller);
    EXPECT_TRUE(layer.ok()) << json << ": " << layer.status();
    return layer.ok() ? *layer : LayerSettings();
  };
  const std::string gemma3 = R"({"model_type": "gemma3_text", "sliding_window": 512})";
  for (const Causality causal : {Causality::kBottomRight, Causality::kTopLeft}) {
    for (const std::string& json :
         {gemma3, std::string(R"({"model_type": "mistral", "sliding_window": 512})"),
          std::string(R"({"model_type": "gemma2", "sliding_window": 512})"),
          std::string(R"({"model_type": "gpt_oss", "rope_scaling": {"rope_type": "default"}, "sliding_window": 512})"),
          std::string(R"({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": true,
                          "max_window_layers": 0})"),
          std::string(R"({"model_type": "modernbert-decoder", "local_attention": 1024, "layer_types":
                          ["sliding_attention"], "local_rope_theta": 160000.0})")}) {
      const LayerSettings layer = parse(json, causal);
      EXPECT_EQ(Left(layer), 511) << json;
      EXPECT_FALSE(layer.window_right) << json;
      EXPECT_FALSE(layer.causal) << "the caller says it";
    }
  }
  const LayerSettings both_sides = parse(gemma3, Causality::kNone);
  EXPECT_EQ(Left(both_sides), 256);
  EXPECT_EQ(*both_sides.window_right, 256);
  CallerSettings caller;
  caller.causal = Causality::kNone;
  EXPECT_THAT(Refusal(R"({"model_type": "mistral", "sliding_window": 8})", "layers.0.", caller),
              HasSubstr("'sliding_window' is set in a model that is not causal"));
}

TEST(HuggingFaceConfig, WhatContradictsItselfIsRefused) {
  const std::string part = R"({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text",
                               "use_bidirectional_attention": true}})";
  EXPECT_THAT(Refusal(part, "layers.0."), HasSubstr("'use_bidirectional_attention' is true in the text part"));
  EXPECT_THAT(Refusal(R"({"model_type": "smollm3", "sliding_window": 4, "use_sliding_window": false,
                          "layer_types": ["sliding_attention"]})",
                      "layers.0."),
              HasSubstr("'use_sliding_window' is false, but layer_types says"));
  EXPECT_THAT(Refusal(R"({"model_type": "bart", "is_encoder_decoder": false})", "decoder.layers.0.encoder_attn."),
              HasSubstr("'is_encoder_decoder' is false"));
  EXPECT_THAT(Refusal(R"({"model_type": "llava", "text_config": {"model_type": "llama"}})", "projector.layers.0."),
              HasSubstr("joins the parts of the model"));
  const std::string olmo = R"({"model_type": "olmo3", "rope_scaling": {"rope_type": "linear", "factor": 2.0},
                               "rope_theta": )";
  EXPECT_FALSE(Parse(olmo + "500000.0}", "layers.0.").rotary->linear_factor);
  EXPECT_EQ(Parse(olmo + "500000.0}", "layers.3.").rotary->linear_factor, 2);
  EXPECT_THAT(Refusal(olmo + "10000.0}", "layers.0."), HasSubstr("'rope_theta' is not 500000"));
}

TEST(HuggingFaceConfig, EncodersMayBeDecoders) {
  EXPECT_EQ(*Parse(R"({"model_type": "bert", "is_decoder": true})").causal, Causality::kBottomRight);
  EXPECT_EQ(*Parse(R"({"model_type": "bert", "architectures": ["BertLMHeadModel"]})").causal, Causality::kNone);
  EXPECT_EQ(*Parse(R"({"model_type": "bert", "is_decoder": true})", "layer.0.crossattention.").causal,
            Causality::kNone);
  EXPECT_THAT(Refusal(R"({"model_type": "vit", "is_decoder": true})"), HasSubstr("'is_decoder' is set"));
  EXPECT_EQ(Refusal(R"({"model_type": "vit", "is_decoder": false})"), "");
}

// transformers' own converter makes a `glm` model of these keys (convert_glm_weights_to_hf.py).
TEST(HuggingFaceConfig, ChatGlmIsGlmByOtherKeys) {
  const std::string keys =
      R"("multi_query_attention": true, "multi_query_group_num": 2, "kv_channels": 16, "add_qkv_bias": true,
      "apply_query_key_layer_scaling": true, "original_rope": true, "post_layer_norm": true, "rmsnorm": true,
      "layernorm_epsilon": 1e-5, "seq_length": 131072, "attention_softmax_in_fp32": true, "pre_seq_len": null)";
  const std::string start =
      R"({"model_type": "chatglm", "num_attention_heads": 4, "padded_vocab_size": 151552, "rope_ratio": 500, )";
  const LayerSettings chat = Parse(start + keys + "}", "transformer.encoder.layers.1.self_attention.", 16);
  const LayerSettings glm =
      Parse(R"({"model_type": "glm", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                                      "rope_theta": 5e6, "attention_bias": true})",
            "model.layers.1.self_attn.", 16);
  EXPECT_EQ(*chat.num_heads, *glm.num_heads);
  EXPECT_EQ(*chat.num_kv_heads, *glm.num_kv_heads);
  EXPECT_EQ(*chat.causal, *glm.causal);
  EXPECT_EQ(chat.rotary->form, glm.rotary->form);
  EXPECT_EQ(chat.rotary->base, glm.rotary->base);
  EXPECT_EQ(chat.rotary->dim, glm.rotary->dim);
  EXPECT_FALSE(chat.scale);
  EXPECT_THAT(Refusal(start + R"("pre_seq_len": 8, "multi_query_attention": true})", "layers.1.", {}, 128),
              HasSubstr("'pre_seq_len' is set"));
  EXPECT_THAT(Refusal(start + keys + "}", "layers.1.", {}, 8), HasSubstr("'kv_channels' is 16"));
}

TEST(HuggingFaceConfig, ListsOfNothingEnd) {
  EXPECT_THAT(Refusal(R"({"model_type": "gpt_neo", "attention_types": [[[], 9000000000000000000]]})", "h.0."),
              HasSubstr("'attention_types' has fewer entries"));
}

TEST(HuggingFaceConfig, ScalesAreTheModels) {
  for (const char* const type : {"granite", "granitemoe", "granitemoeshared", "granitemoehybrid"}) {
    const std::string json = std::string(R"({"model_type": ")") + type + R"(", "attention_multiplier": 0.0625})";
    EXPECT_EQ(*Parse(json).scale, 0.0625) << type;
  }
  EXPECT_EQ(*Parse(R"({"model_type": "falcon_h1", "key_multiplier": 0.5, "rope_theta": 1e4})", "", 16).scale, 0.125);
  EXPECT_EQ(*Parse(R"({"model_type": "gemma2", "query_pre_attn_scalar": 0.25})").scale, 2);
  for (const char* const scalar : {"0", "-0.25"}) {
    EXPECT_THAT(
        Refusal(std::string(R"({"model_type": "gemma2", "query_pre_attn_scalar": )") + scalar + "}", "layers.0."),
        HasSubstr("'query_pre_attn_scalar' must be positive"));
  }
  EXPECT_THAT(Refusal(R"({"model_type": "falcon_h1", "key_multiplier": 0.5, "rope_theta": 1e4})"),
              HasSubstr("'key_multiplier' needs the size of a head"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "attention_multiplier": 0.0625})"),
              HasSubstr("'attention_multiplier'"));
}

TEST(HuggingFaceConfig, EncoderDecodersAreCausalInTheirDecodersSelfAttention) {
  const std::string t5 = R"({"model_type": "t5", "num_heads": 6, "d_kv": 64, "is_encoder_decoder": true})";
  const auto causal = [&](const std::string& prefix) { return *Parse(t5, prefix).causal; };
  EXPECT_EQ(causal("encoder.block.0."), Causality::kNone);
  EXPECT_EQ(causal("decoder.block.0."), Causality::kBottomRight);
  EXPECT_EQ(causal("decoder.block.0.layer.1.EncDecAttention."), Causality::kNone);
  EXPECT_EQ(causal("decoder.block.0.layer.1."), Causality::kNone);
  EXPECT_EQ(*Parse(t5, "encoder.block.0.").scale, 1);
  EXPECT_EQ(*Parse(t5, "encoder.block.0.").num_heads, 6);
  EXPECT_THAT(Parse(t5, "encoder.block.0.").notes, ElementsAre(HasSubstr("options.bias")));
  EXPECT_THAT(Refusal(t5, "block.0."), HasSubstr("whether the layer is one of the encoder or of the decoder"));
  const std::string bart = R"({"model_type": "bart", "is_encoder_decoder": true, "decoder_attention_heads": 3,
                               "encoder_attention_heads": 2})";
  EXPECT_EQ(*Parse(bart, "model.decoder.layers.0.self_attn").num_heads, 3);
  EXPECT_EQ(*Parse(bart, "model.encoder.layers.0.").num_heads, 2);
}

TEST(HuggingFaceConfig, Gpt2MayScaleByTheLayer) {
  const std::string json = R"({"model_type": "gpt2", "n_head": 2, "scale_attn_by_inverse_layer_idx": true})";
  EXPECT_DOUBLE_EQ(*Parse(json, "h.3.", 4).scale, 0.5 / 4);
  EXPECT_THAT(Refusal(json, "h", {}, 4), HasSubstr("scale_attn_by_inverse_layer_idx"));
  EXPECT_FALSE(Parse(R"({"model_type": "gpt2", "n_head": 2})").scale);
  EXPECT_EQ(*Parse(R"({"model_type": "gpt2", "n_head": 2, "scale_attn_weights": false})").scale, 1);
}

TEST(HuggingFaceConfig, AlibiHasTheSlopesOfItsPaper) {
  const auto slopes = [](const std::string& json) {
    const LayerSettings config = Parse(json);
    return config.alibi_slopes ? *config.alibi_slopes : std::vector<float>();
  };
  EXPECT_THAT(slopes(R"({"model_type": "bloom", "n_head": 4})"), ElementsAre(0.25, 0.0625, 0.015625, 0.00390625));
  EXPECT_THAT(slopes(R"({"model_type": "bloom", "n_head": 3})"), ElementsAre(0.0625, 0.00390625, 0.25));
  EXPECT_THAT(slopes(R"({"model_type": "mpt", "n_heads": 3})"), ElementsAre(0.0625, 0.00390625, 0.25));
  for (const char* const unusual : {R"("alibi": false)", R"("alibi_bias_max": 16)"}) {
    const std::string json = R"({"model_type": "mpt", "n_heads": 4, "attn_config": {)" + std::string(unusual) + "}}";
    EXPECT_THAT(Refusal(json), HasSubstr("which MPT's own code follows and transformers does not"));
    CallerSettings caller;
    caller.alibi_slopes = true;
    EXPECT_EQ(Refusal(json, "", caller), "");
  }
  EXPECT_THAT(slopes(R"({"model_type": "mpt", "n_heads": 4})"), ElementsAre(0.25, 0.0625, 0.015625, 0.00390625));
  EXPECT_THAT(slopes(R"({"model_type": "bloom", "n_head": 1})"), ElementsAre(0.00390625));
  EXPECT_EQ(slopes(R"({"model_type": "bloom", "n_head": 1024})").size(), 1024U);
  for (const char* const heads : {"0", "1025", "null"}) {
    EXPECT_THAT(Refusal(std::string(R"({"model_type": "bloom", "n_head": )") + heads + "}"),
                HasSubstr("'n_head' must be between 1 and 1024"));
  }
}

TEST(HuggingFaceConfig, FalconsKeyHeadsDependOnItsAge) {
  const std::string old =
      R"({"model_type": "falcon", "num_attention_heads": 71, "multi_query": true, "num_kv_heads": 71})";
  EXPECT_EQ(*Parse(old).num_kv_heads, 1);
  const std::string later = R"({"model_type": "falcon", "new_decoder_architecture": true, "num_kv_heads": 8})";
  EXPECT_EQ(*Parse(later).num_kv_heads, 8);
}

TEST(HuggingFaceConfig, AnUnknownTypeIsRefusedUnlessTheCallerKnowsBetter) {
  const std::string json = R"({"model_type": "nova", "num_attention_heads": 4, "sliding_window": 8})";
  EXPECT_THAT(Refusal(json),
              ::testing::AllOf(HasSubstr("the model type 'nova' is not known"), HasSubstr("num_heads"),
                               HasSubstr("options.causal"), HasSubstr("rotary_embedding"), HasSubstr("options.scale")));
  EXPECT_THAT(Refusal(R"({"num_attention_heads": 4})"), HasSubstr("'model_type' is missing"));
  CallerSettings caller;
  caller.causal = Causality::kBottomRight;
  caller.rotary = true;
  caller.num_heads = 4;
  EXPECT_THAT(Refusal(json, "", caller), HasSubstr("Set in the layer's configuration: options.scale"));
  caller.scale = true;
  EXPECT_THAT(Refusal(json, "", caller), HasSubstr("'sliding_window' is set"));
  caller.window = true;
  EXPECT_EQ(Refusal(json, "", caller), "");
  caller.num_heads = 1;
  EXPECT_EQ(Refusal(json, "", caller), "");
}

TEST(HuggingFaceConfig, AKeyThatMayBeAboutAttentionAndIsNotKnownIsNamed) {
  for (const char* const key :
       {"attention_chunk_size", "attn_temperature_tuning", "use_gated_attention", "query_scale", "qk_clip", "alibi_max",
        "rope_fancy", "window_type", "head_gate", "global_layers", "logit_softcap", "sink_tokens", "causal_conv"}) {
    const std::string json = std::string(R"({"model_type": "llama", ")") + key + R"(": )";
    EXPECT_THAT(Refusal(json + "1}"), HasSubstr(std::string("'").append(key).append("' is set"))) << key;
    EXPECT_THAT(Refusal(json + "false}"), HasSubstr(key)) << "what it is by default is not known either";
    EXPECT_EQ(Refusal(json + "null}"), "") << key;
  }
  EXPECT_EQ(Refusal(R"({"model_type": "llama", "hidden_act": "silu", "attention_dropout": 0.1, "mask_token_id": 3,
                        "temperature": 0.7, "use_cache": true, "pruned_heads": {}})"),
            "");
  EXPECT_THAT(Refusal(R"({"model_type": "bert", "pruned_heads": {"0": [1]}})"), HasSubstr("'pruned_heads' is set"));
  // Beside the part of a model, too.
  EXPECT_THAT(Refusal(R"({"model_type": "llava", "text_config": {"model_type": "llama"}, "prefix_attention": 1})"),
              HasSubstr("'prefix_attention' is set"));
}

TEST(HuggingFaceConfig, WhatCannotBeComputedSaysWhy) {
  EXPECT_THAT(Refusal(R"({"model_type": "deberta-v2"})"), HasSubstr("disentangled"));
  EXPECT_THAT(Refusal(R"({"model_type": "olmo", "clip_qkv": 8.0})"), HasSubstr("'clip_qkv' is set"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "clip_qkv": 8.0})"), HasSubstr("'clip_qkv' is set"));
  EXPECT_THAT(Refusal(R"({"model_type": "mpt", "n_heads": 4, "attn_config": {"clip_qkv": 8}})"), HasSubstr("clip_qkv"));
  EXPECT_EQ(Refusal(R"({"model_type": "olmo", "clip_qkv": null})"), "");
  EXPECT_THAT(Refusal(R"({"model_type": "bert", "position_embedding_type": "relative_key"})"),
              HasSubstr("is relative_key, which is not supported"));
  EXPECT_THAT(Refusal(R"({"model_type": "beit", "use_relative_position_bias": true})"),
              HasSubstr("relative position biases are not supported"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "head_dim": 64})", "", {}, 32), HasSubstr("'head_dim' is 64"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "head_dim": 64})", "", {}, 1), HasSubstr("'head_dim' is 64"));
  EXPECT_EQ(Refusal(R"({"model_type": "llama", "head_dim": 64})", "", {}, 0), "") << "the size is not known";
}

TEST(HuggingFaceConfig, WhatIsNoConfigIsRefused) {
  for (const char* const text : {"", "[]", "{", "3", "\"x\"", "null", "{\"a\": \xff}", R"({"a": 1, "a": 2})"}) {
    EXPECT_THAT(Refusal(text), HasSubstr("not a JSON object")) << text;
  }
  const auto llama = [](const std::string& rest) { return Refusal(R"({"model_type": "llama", )" + rest + "}"); };
  EXPECT_THAT(llama(R"("num_attention_heads": "12")"), HasSubstr("'num_attention_heads' is not a whole number"));
  EXPECT_THAT(llama(R"("num_attention_heads": -1)"), HasSubstr("'num_attention_heads'"));
  EXPECT_EQ(llama(R"("num_attention_heads": 2147483647)"), "");
  EXPECT_THAT(llama(R"("num_attention_heads": 2147483648)"), HasSubstr("'num_attention_heads' is not a whole number"));
  EXPECT_THAT(llama(R"("num_attention_heads": 1e300)"), HasSubstr("'num_attention_heads'"));
  EXPECT_THAT(llama(R"("num_attention_heads": 18446744073709551615)"), HasSubstr("'num_attention_heads'"));
  EXPECT_THAT(llama(R"("rope_theta": [])"), HasSubstr("'rope_theta' is not a number"));
  EXPECT_THAT(llama(R"("rope_theta": NaN)"), HasSubstr("'rope_theta' is not a number"));
  EXPECT_THAT(llama(R"("rope_scaling": "x")"), HasSubstr("'rope_scaling' is not an object"));
  EXPECT_THAT(Refusal(R"({"model_type": 7})"), HasSubstr("'model_type' is not a string"));
  EXPECT_THAT(Refusal(R"({"model_type": "bert", "is_decoder": 1})"),
              HasSubstr("'is_decoder' is neither true nor false"));
  EXPECT_EQ(Refusal(R"({"model_type": "bert", "architectures": 3, "text_config": []})"), "");
  EXPECT_THAT(Refusal(std::string(100000, '[')), HasSubstr("not a JSON object"));
  const auto mpt = [](const std::string& keys) {
    return Refusal(R"({"model_type": "mpt", "n_heads": 4, "attn_config": {)" + keys + "}}");
  };
  EXPECT_THAT(mpt(R"("kv_n_heads": 2)"), HasSubstr("'attn_config.kv_n_heads' is set"));
  EXPECT_THAT(mpt(R"("attn_logit_softcapping": 30.0)"), HasSubstr("'attn_config.attn_logit_softcapping' is set"));
  EXPECT_EQ(mpt(R"("alibi": true, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "qk_gn": false,
                   "attn_type": "multihead_attention", "attn_uses_sequence_id": false, "clip_qkv": null, "rope": false,
                   "rope_theta": 10000, "prefix_lm": false, "qk_ln": false, "softmax_scale": null, "is_decoder": false)"),
            "");
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "attn_config": {"window": 8}})"), HasSubstr("'attn_config' is set"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "rope_config": {"factor": 8}})"), HasSubstr("'rope_config' is set"));
  EXPECT_EQ(Refusal(R"({"model_type": "llama", "mask_decoder_config": {"factor": 8}, "quantization_config": {}})"), "");
  EXPECT_THAT(Refusal(R"({"model_type": "mpt", "n_heads": 4, "attn_config": {"alibi_bias_max": "8"}})"),
              HasSubstr("'alibi_bias_max' is not a number"));
}

TEST(HuggingFaceConfig, NumbersThatPythonAloneWritesMayStandInKeysThatAreNotRead) {
  EXPECT_EQ(Refusal(R"({"model_type": "llama", "time_step_limit": [0.0, Infinity], "x": NaN, "y": -Infinity,
                        "s": "NaN \" Infinity"})"),
            "");
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "x": Infinit})"), HasSubstr("a mistake at byte"));
}

// Valid JSON, and small enough to be read; copying it would take more stack than there is.
TEST(HuggingFaceConfig, DeepNestingIsRefusedAndDoesNotOverflowTheStack) {
  const auto nested = [](int depth) {
    return R"({"model_type": "llama", "x": )" + std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']') + "}";
  };
  EXPECT_THAT(Refusal(nested(400000)), HasSubstr("not a JSON object"));
  EXPECT_THAT(Refusal(nested(65)), HasSubstr("not a JSON object"));
  EXPECT_EQ(Refusal(nested(60)), "");
}

TEST(HuggingFaceConfig, APrefixesNumberThatIsNoLayersIsNotCounted) {
  EXPECT_THAT(Refusal(R"({"model_type": "gemma3_text", "sliding_window": 4})", "layers.9223372036854775807."),
              HasSubstr("no number that says which one"));
  EXPECT_THAT(Refusal(R"({"model_type": "gemma3_text", "sliding_window": 4})", "layers.-1."),
              HasSubstr("no number that says which one"));
}

TEST(HuggingFaceConfig, CrossAttentionMayHaveHeadsOfItsOwn) {
  const std::string json = R"({"model_type": "dia_decoder", "num_attention_heads": 4, "num_key_value_heads": 2,
      "cross_num_attention_heads": 8, "cross_num_key_value_heads": 8, "head_dim": 16, "cross_head_dim": 32})";
  const auto own = ParseHuggingFaceConfig(json, "layers.0.self_attention.", {}, 16);
  const auto cross = ParseHuggingFaceConfig(json, "layers.0.cross_attention.", {}, 32);
  ASSERT_TRUE(own.ok() && cross.ok()) << own.status() << cross.status();
  EXPECT_EQ(*own->num_kv_heads, 2);
  EXPECT_EQ(*cross->num_heads, 8);
  EXPECT_EQ(*cross->num_kv_heads, 8);
  EXPECT_THAT(Refusal(json, "layers.0.cross_attention.", {}, 16), HasSubstr("'cross_head_dim' is 32"));
  const std::string moonshine = R"({"model_type": "moonshine", "encoder_num_attention_heads": 4,
      "decoder_num_attention_heads": 8, "decoder_num_key_value_heads": 2})";
  const auto decoder = ParseHuggingFaceConfig(moonshine, "model.decoder.layers.0.self_attn.", {}, 20);
  const auto encoder = ParseHuggingFaceConfig(moonshine, "model.encoder.layers.0.self_attn.", {}, 20);
  ASSERT_TRUE(decoder.ok() && encoder.ok()) << decoder.status() << encoder.status();
  EXPECT_EQ(*decoder->num_heads, 8);
  EXPECT_EQ(*decoder->num_kv_heads, 2);
  EXPECT_EQ(*encoder->num_heads, 4);
  EXPECT_EQ(decoder->rotary->dim, 18);
  EXPECT_THAT(Refusal(moonshine, "model.decoder.layers.0.self_attn.", {}, 8), HasSubstr("turns 7 elements"));
}

TEST(HuggingFaceConfig, KeysThatAFewTypesReadAreApplied) {
  const auto causal = ParseHuggingFaceConfig(R"({"model_type": "xlm", "n_heads": 4, "causal": true})", "attentions.0.");
  ASSERT_TRUE(causal.ok()) << causal.status();
  EXPECT_EQ(*causal->causal, Causality::kBottomRight);
  EXPECT_THAT(
      Refusal(R"({"model_type": "mvp", "use_prompt": true, "encoder_attention_heads": 4})", "encoder.layers.0."),
      HasSubstr("'use_prompt' is true"));
  const auto plain = ParseHuggingFaceConfig(
      R"({"model_type": "olmo_hybrid", "num_attention_heads": 4, "rope_parameters": {"rope_theta": null}})",
      "layers.3.self_attn.");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->rotary->form, RotaryForm::kNone);
}

TEST(ModelRules, EveryRowCanBeUsed) {
  for (const ModelRules& rules : AllModelRules()) {
    const std::string types(rules.types);
    const std::string first = types.substr(0, types.find(' '));
    EXPECT_EQ(FindModelRules(first), &rules) << "a type stands in two rows: " << first;
    if (!rules.refused.empty()) continue;
    // With values for what versions do not agree on.
    const std::string json =
        R"({"model_type": ")" + first + R"(", "num_attention_heads": 4, "rope_theta": 1e4, "key_multiplier": 1.0,
                                 "attention_types": [[["global", "local"], 12]], "attention_multiplier": 1.0,
                                 "layer_types": ["full_attention"])" +
        (first == "chatglm" ? R"(, "multi_query_attention": true, "kv_channels": 64)" : "") +
        (first == "pop2piano" ? R"(, "num_heads": 4)" : "") +
        (first == "mellum" || first == "voxtral_realtime_text" ? R"(, "sliding_window": 8)" : "") +
        (first == "canary_decoder" || first == "voxtral_realtime_text" ? R"(, "num_key_value_heads": 4)" : "") +
        (first == "cohere2_moe" ? R"(, "mlp_layer_types": ["dense"])" : "") +
        (first == "modernbert-decoder" ? R"(, "rope_parameters": {"full_attention": {}})"
         : first == "olmo_hybrid"      ? R"(, "rope_parameters": {"rope_theta": null})"
                                       : R"(, "rope_scaling": {"rope_type": "default"})") +
        (first == "moonshine" || first == "nemotron3_diarization_audio" ? R"(, "partial_rotary_factor": 0.5)" : "") +
        "}";
    const bool is_decoder_alone = (rules.traits & kDecoderAlone) != 0;
    const std::string refusal = Refusal(json, is_decoder_alone ? "decoder.layers.0." : "encoder.layers.0.", {}, 64);
    // Keys of other models are named, and nothing else is wrong.
    if (!refusal.empty()) {
      EXPECT_THAT(refusal, HasSubstr("is set, and what it does")) << first;
    }
  }
  EXPECT_EQ(FindModelRules("lla"), nullptr);
  EXPECT_EQ(FindModelRules(""), nullptr);
}

}  // namespace
}  // namespace attend::formats
