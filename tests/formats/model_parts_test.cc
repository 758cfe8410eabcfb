// Models of several parts: which part's configuration a prefix means, and what is about none of them. Heads that the
// file, its part or its type's code have under several names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "formats/hugging_face/hugging_face_config.h"
#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::HasSubstr;

TEST(ModelParts, ThePrefixSaysWhichPartOfAModelIsMeant) {
  const std::string clip = R"({"model_type": "clip", "text_config": {"num_attention_heads": 8},
                               "vision_config": {"num_attention_heads": 12}})";
  EXPECT_EQ(*Parse(clip, "text_model.encoder.layers.0.").num_heads, 8);
  EXPECT_EQ(*Parse(clip, "text_model.encoder.layers.0.").causal, Causality::kBottomRight);
  EXPECT_EQ(*Parse(clip, "vision_model.encoder.layers.0.").num_heads, 12);
  EXPECT_EQ(*Parse(clip, "vision_model.encoder.layers.0.").causal, Causality::kNone);
  const std::string qwen = R"({"model_type": "qwen2_5_vl", "num_attention_heads": 16,
                               "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
                               "vision_config": {"num_heads": 16}})";
  EXPECT_EQ(Parse(qwen).rotary->base, 1000000);
  EXPECT_THAT(Refusal(qwen, "visual.blocks.0."),
              HasSubstr("'qwen2_5_vl_vision' cannot be computed: its queries and keys are turned by row and column"));
}

TEST(ModelParts, TheFirstWordOfThePrefixSaysWhichPartIsMeant) {
  const std::string json = R"({"model_type": "somebodys",
      "vlm_config": {"model_type": "theirs", "text_config": {"model_type": "llama", "num_attention_heads": 2},
                     "vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 3}},
      "audio_config": {"model_type": "whisper", "encoder_attention_heads": 5},
      "qformer_config": {"model_type": "blip_2_qformer", "num_attention_heads": 7}})";
  const auto heads = [&](const char* prefix) {
    const auto layer = ParseHuggingFaceConfig(json, prefix);
    return layer.ok() ? layer->num_heads.value.value_or(0) : -1;
  };
  EXPECT_EQ(heads("vlm.language_model.layers.0.self_attn."), 2);
  EXPECT_EQ(heads("vlm.vision_tower.encoder.layers.0.self_attn."), 3);
  EXPECT_EQ(heads("audio_tower.encoder.layers.0.self_attn."), 5);
  EXPECT_EQ(heads("qformer.encoder.layer.0.attention.attention."), 7);
  EXPECT_THAT(Refusal(json, "language_model.layers.0.self_attn."), HasSubstr("'somebodys' is not known"));
}

// transformers 4 says nothing of it in the text's part; 5 writes use_bidirectional_attention.
TEST(ModelParts, TheTextOfPaliGemmaHasAMaskThatTheCallMakes) {
  const std::string part =
      R"("model_type": "paligemma", "text_config": {"model_type": "gemma", "num_attention_heads": 2},
                              "vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 2})";
  for (const std::string& json : {"{" + part + "}", R"({"model_type": "colpali", "vlm_config": {)" + part + "}}"}) {
    EXPECT_THAT(Refusal(json, "vlm.language_model.model.layers.0.self_attn."), HasSubstr("a prefix that sees all"));
    EXPECT_EQ(Refusal(json, "vlm.vision_tower.encoder.layers.0.self_attn."), "");
  }
}

TEST(ModelParts, APartWithoutATypeIsNotTakenForTheText) {
  EXPECT_THAT(Refusal(R"({"model_type": "sam3", "detr_encoder_config": {"model_type": "sam3_detr_encoder"},
                          "text_config": {"model_type": "clip_text_model", "num_attention_heads": 4}})",
                      "detr_encoder.layers.0.self_attn."),
              HasSubstr("'sam3_detr_encoder' is not known"));
  EXPECT_THAT(Refusal(R"({"model_type": "minimax", "num_attention_heads": 4, "sliding_window": 7})"),
              HasSubstr("'sliding_window' is set"));
  EXPECT_THAT(Refusal(R"({"model_type": "evolla", "protein_encoder_config": {"num_attention_heads": 4},
                          "text_config": {"model_type": "llama", "num_attention_heads": 4}})",
                      "protein_encoder.model.encoder.layer.0.attention."),
              HasSubstr("'model_type' is missing"));
}

TEST(ModelParts, EncoderAndDecoderMayHaveConfigurationsOfTheirOwn) {
  const std::string json = R"({"model_type": "encoder-decoder", "is_encoder_decoder": true,
      "encoder": {"model_type": "bert", "num_attention_heads": 4},
      "decoder": {"model_type": "bert", "num_attention_heads": 2, "is_decoder": true, "add_cross_attention": true}})";
  const auto encoder = ParseHuggingFaceConfig(json, "encoder.encoder.layer.0.attention.");
  const auto decoder = ParseHuggingFaceConfig(json, "decoder.bert.encoder.layer.0.attention.");
  const auto cross = ParseHuggingFaceConfig(json, "decoder.bert.encoder.layer.0.crossattention.");
  ASSERT_TRUE(encoder.ok() && decoder.ok() && cross.ok()) << encoder.status() << decoder.status() << cross.status();
  EXPECT_EQ(*encoder->causal, Causality::kNone);
  EXPECT_EQ(*decoder->causal, Causality::kBottomRight);
  EXPECT_EQ(*decoder->num_heads, 2);
  EXPECT_EQ(*cross->causal, Causality::kNone);
}

TEST(ModelParts, KeysBesideThePartsMayBeAboutNoneAndLayersBetweenThemAsTheTexts) {
  const std::string json = R"({"model_type": "bridgetower", "num_attention_heads": 8,
      "text_config": {"model_type": "bridgetower_text_model", "num_attention_heads": 4},
      "vision_config": {"model_type": "bridgetower_vision_model", "hidden_size": 768}})";
  const auto text = ParseHuggingFaceConfig(json, "text_model.encoder.layer.0.attention.");
  const auto vision = ParseHuggingFaceConfig(json, "vision_model.visual.transformer.resblocks.0.attn.");
  const auto joint = ParseHuggingFaceConfig(json, "cross_modal_image_layers.0.crossattention.");
  ASSERT_TRUE(text.ok() && vision.ok() && joint.ok()) << text.status() << vision.status() << joint.status();
  EXPECT_EQ(*text->num_heads, 4);
  EXPECT_EQ(*vision->num_heads, 12);
  EXPECT_EQ(*joint->num_heads, 4);
  // The code that calls the text's layers does not look at it.
  EXPECT_THAT(Refusal(R"({"model_type": "bridgetower", "text_config": {"model_type": "bridgetower_text_model",
                          "num_attention_heads": 4, "is_decoder": true}})",
                      "text_model.encoder.layer.0.attention."),
              HasSubstr("'is_decoder' is set"));
}

// What transformers 4 writes of FSMT's decoder and beside Fuyu's text.
TEST(ModelParts, WhatIsNoPartOrNoPartsKeyIsNotRead) {
  const std::string fsmt = R"({"model_type": "fsmt", "encoder_attention_heads": 4, "decoder_attention_heads": 2,
                               "decoder": {"model_type": "fsmt_decoder", "vocab_size": 128}})";
  EXPECT_EQ(*Parse(fsmt, "model.decoder.layers.0.self_attn.").num_heads, 2);
  EXPECT_EQ(*Parse(fsmt, "model.decoder.layers.0.self_attn.").causal, Causality::kBottomRight);
  const std::string fuyu = R"({"model_type": "fuyu", "num_attention_heads": 64, "rope_theta": 9.0,
      "text_config": {"model_type": "persimmon", "num_attention_heads": 4, "rope_theta": 25000.0}})";
  EXPECT_EQ(*Parse(fuyu, "language_model.layers.0.self_attn.", 64).num_heads, 4);
  EXPECT_EQ(Parse(fuyu, "language_model.layers.0.self_attn.", 64).rotary->base, 25000);
  const std::string music = R"({"model_type": "musicflamingo", "head_dim": 64, "max_position_embeddings": 1200,
      "rope_parameters": {"rope_theta": 1200.0}, "text_config": {"model_type": "qwen2", "num_attention_heads": 4}})";
  EXPECT_EQ(Parse(music, "language_model.layers.0.self_attn.").rotary->base, 10000);
  EXPECT_THAT(Refusal(R"({"model_type": "musicflamingo", "num_attention_heads": 4})"), HasSubstr("is not known"));
}

TEST(ModelParts, AQFormersRelativePositionsAreRefused) {
  const auto refusal = [](const std::string& type) {
    return Refusal(R"({"model_type": "blip_2_qformer", "num_attention_heads": 4, "position_embedding_type": ")" + type +
                   "\"}");
  };
  EXPECT_EQ(refusal("absolute"), "");
  EXPECT_THAT(refusal("relative_key"), HasSubstr("'position_embedding_type' is relative_key"));
}

TEST(ModelParts, AnEncoderThatIsNotPlainIsRefusedAndItsDecoderIsNot) {
  const std::string json = R"({"model_type": "bigbird_pegasus", "attention_type": "block_sparse",
                               "encoder_attention_heads": 4, "decoder_attention_heads": 4})";
  EXPECT_THAT(Refusal(json, "model.encoder.layers.0.self_attn."), HasSubstr("encoder of such a model"));
  EXPECT_EQ(Refusal(json, "model.decoder.layers.0.self_attn."), "");
  // A mask that the caller says is not all that such an encoder does.
  CallerSettings caller;
  caller.causal = Causality::kNone;
  EXPECT_THAT(Refusal(json, "model.encoder.layers.0.self_attn.", caller), HasSubstr("encoder of such a model"));
  EXPECT_THAT(Refusal(json, "layers.0.self_attn.", caller), HasSubstr("encoder of such a model"));
  EXPECT_EQ(Refusal(json, "model.decoder.layers.0.self_attn.", caller), "");
}

TEST(ModelParts, NumbersOfHeadsUnderSeveralNamesMustAgree) {
  EXPECT_EQ(*Parse(R"({"model_type": "bloom", "n_head": 8, "num_attention_heads": 8})").num_heads, 8);
  EXPECT_THAT(Refusal(R"({"model_type": "bloom", "n_head": 8, "num_attention_heads": 4})"),
              HasSubstr("'n_head' is another number"));
  EXPECT_EQ(*Parse(R"({"model_type": "pop2piano", "num_attention_heads": 8})", "encoder.block.0.").num_heads, 8);
  EXPECT_THAT(Refusal(R"({"model_type": "pop2piano", "num_attention_heads": 4})", "encoder.block.0."),
              HasSubstr("is another number"));
  const std::string llama = R"({"model_type": "llama", "n_heads": 40})";  // Its code has 32.
  EXPECT_THAT(Refusal(llama), HasSubstr("in the code of llama models"));
  EXPECT_EQ(Refusal(llama, "", {.num_heads = 40}), "");
  const LayerSettings code = Parse(R"({"model_type": "gpt_bigcode", "n_head": 4, "multi_query": false,
                                       "num_key_value_heads": 2})");
  EXPECT_FALSE(code.num_kv_heads);  // As many as heads: transformers makes it of multi_query.
}

}  // namespace
}  // namespace attend::formats
