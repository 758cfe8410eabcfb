// Models whose windows, or the bases of whose rotary embeddings, are counted in ways of their own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>

#include "formats/hugging_face/hugging_face_config.h"
#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::HasSubstr;

// A window's tokens to the left and to the right; -1: no window.
std::pair<std::int64_t, std::int64_t> Sides(const LayerSettings& layer) {
  return {layer.window_left.value.value_or(-1), layer.window_right.value.value_or(-1)};
}

std::string OfType(const std::string& type, const std::string& more) {
  return R"({"model_type": ")" + type + R"(", "num_attention_heads": 4, )" + more + "}";
}

TEST(ModelWindows, TheDecoderOfModernBertHasHalfOfItsWindow) {
  const auto json = [](const std::string& more) {
    return OfType("modernbert-decoder", R"("local_rope_theta": 160000.0, )" + more);
  };
  EXPECT_EQ(Sides(Parse(json(R"("local_attention": 128)"), "model.layers.0.")), std::pair(-1L, -1L));
  EXPECT_EQ(Sides(Parse(json(R"("local_attention": 128)"), "model.layers.1.")), std::pair(63L, -1L));
  EXPECT_EQ(Sides(Parse(json(R"("local_attention": 15, "sliding_window": 7)"), "model.layers.2.")), std::pair(6L, -1L));
  EXPECT_EQ(Sides(Parse(json(R"("global_attn_every_n_layers": 2)"), "model.layers.2.")), std::pair(-1L, -1L));
  EXPECT_THAT(Refusal(json(R"("local_attention": 128, "sliding_window": 128)"), "model.layers.1."),
              HasSubstr("'sliding_window' is not half of local_attention"));
  EXPECT_EQ(Sides(Parse(json(R"("local_attention": 2)"), "model.layers.1.")), std::pair(0L, -1L));
  for (const char* const too_small : {"0", "1"}) {
    EXPECT_THAT(Refusal(json(std::string(R"("local_attention": )") + too_small), "model.layers.1."),
                HasSubstr("'local_attention' must be at least 2"));
  }
}

TEST(ModelWindows, TheDecoderOfModernBertIsReadWhereVersionsAgreeOnItsBases) {
  const auto refusal = [](const std::string& more, const char* prefix) {
    return Refusal(OfType("modernbert-decoder", more), prefix);
  };
  const std::string nested = OfType("modernbert-decoder", R"("rope_parameters":
      {"full_attention": {"rope_theta": 5000.0}, "sliding_attention": {"rope_theta": 7000.0}})");
  EXPECT_EQ(Parse(nested, "model.layers.0.").rotary->base, 5000);
  EXPECT_EQ(Parse(nested, "model.layers.1.").rotary->base, 7000);
  EXPECT_EQ(refusal(R"("local_rope_theta": 10000.0)", "model.layers.0."), "");
  EXPECT_THAT(refusal(R"("local_rope_theta": 10000.0)", "model.layers.1."), HasSubstr("'local_rope_theta' is not"));
  EXPECT_THAT(refusal(R"("use_cache": true)", "model.layers.1."), HasSubstr("'local_rope_theta' is missing"));
  EXPECT_THAT(refusal(R"("rope_theta": 10000.0)", "model.layers.0."), HasSubstr("'rope_theta' is read by"));
  EXPECT_THAT(refusal(R"("rope_parameters": {"rope_theta": 10000.0})", "model.layers.0."),
              HasSubstr("an object for each kind of layer"));
}

TEST(ModelWindows, EncodersCountTheirWindowsInThreeWays) {
  const std::string rope = R"("rope_parameters": {"full_attention": {"rope_theta": 9.0},
                                                  "sliding_attention": {"rope_theta": 5.0}}, )";
  const std::string types = rope + R"("layer_types": ["sliding_attention", "full_attention"], "sliding_window": )";
  const auto sides = [&](const char* type, const char* window, const char* prefix) {
    return Sides(Parse(OfType(type, types + window), prefix));
  };
  EXPECT_EQ(sides("ultrabert", "7", "model.layers.0."), std::pair(7L, 7L));
  EXPECT_EQ(sides("ultrabert", "7", "model.layers.1."), std::pair(-1L, -1L));
  EXPECT_EQ(sides("t5gemma2_text", "7", "encoder.layers.0."), std::pair(3L, 3L));
  EXPECT_EQ(sides("t5gemma2_text", "8", "encoder.layers.0."), std::pair(3L, 4L));
  EXPECT_EQ(*Parse(OfType("t5gemma2_text", types + "8"), "encoder.layers.1.").causal, Causality::kNone);
  const std::string ultra = OfType("ultrabert", types + "7");
  EXPECT_EQ(Parse(ultra, "model.layers.0.").rotary->base, 5);
  EXPECT_EQ(Parse(ultra, "model.layers.1.").rotary->base, 9);
  EXPECT_THAT(Refusal(OfType("ultrabert", R"("layer_types": ["full_attention"])"), "model.layers.0."),
              HasSubstr("'rope_theta' is missing"));
}

TEST(ModelWindows, AWindowHasTheQueryItselfAtLeast) {
  const auto neo = [](const std::string& window) {
    return OfType("gpt_neo", R"("attention_layers": ["local"], "window_size": )" + window);
  };
  EXPECT_EQ(Sides(Parse(neo("1"), "h.0.")), std::pair(0L, -1L));
  EXPECT_THAT(Refusal(neo("0"), "h.0."), HasSubstr("'window_size' must be at least 1"));
  EXPECT_EQ(Sides(Parse(OfType("mistral", R"("sliding_window": 1)"))), std::pair(0L, -1L));
  EXPECT_THAT(Refusal(OfType("mistral", R"("sliding_window": 0)")), HasSubstr("'sliding_window' must be at least 1"));
}

TEST(ModelWindows, ThePeriodOfTheLayersWithoutAWindowIsAtLeastOne) {
  struct Model {
    const char* type;
    const char* key;
    const char* sliding;  // With a period of 2.
    const char* full;
  };
  const Model models[] = {{"gemma3_text", "sliding_window_pattern", "layers.0.", "layers.1."},
                          {"modernbert", "global_attn_every_n_layers", "layers.1.", "layers.0."}};
  for (const Model& model : models) {
    const auto json = [&](const std::string& period) {
      return OfType(model.type, std::string("\"") + model.key + "\": " + period);
    };
    EXPECT_NE(Left(Parse(json("2"), model.sliding)), -1) << model.type;
    EXPECT_EQ(Left(Parse(json("2"), model.full)), -1) << model.type;
    EXPECT_EQ(Left(Parse(json("1"), model.sliding)), -1) << model.type;
    EXPECT_EQ(Left(Parse(json("1"), model.full)), -1) << model.type;
    EXPECT_THAT(Refusal(json("1"), "self_attn."), HasSubstr("the prefix has no number")) << model.type;
    EXPECT_THAT(Refusal(json("0"), model.full), HasSubstr(std::string("'") + model.key + "' must be at least 1"));
  }
}

TEST(ModelWindows, ThePeriodOfTheLayersWithoutARotaryEmbeddingIsAtLeastOne) {
  const auto json = [](const std::string& period) {
    return OfType("smollm3", R"("no_rope_layer_interval": )" + period);
  };
  EXPECT_TRUE(Turns(Parse(json("2"), "layers.0.")));
  EXPECT_FALSE(Turns(Parse(json("2"), "layers.1.")));
  EXPECT_FALSE(Turns(Parse(json("1"), "layers.0.")));
  EXPECT_FALSE(Turns(Parse(json("1"), "layers.1.")));
  EXPECT_THAT(Refusal(json("1"), "self_attn."), HasSubstr("the prefix has no number"));
  EXPECT_THAT(Refusal(json("0"), "layers.0."), HasSubstr("'no_rope_layer_interval' must be at least 1"));
}

// The window of its encoder is one token larger to both sides in transformers 5 than in 4.
TEST(ModelWindows, TheEncoderOfT5GemmaIsReadWhereItHasNoWindow) {
  const std::string json = R"({"model_type": "t5gemma", "is_encoder_decoder": true,
      "encoder": {"model_type": "t5_gemma_module", "num_attention_heads": 4, "sliding_window": 7},
      "decoder": {"model_type": "t5_gemma_module", "num_attention_heads": 4, "sliding_window": 7, "is_decoder": true,
                  "is_encoder_decoder": false, "cross_attention_hidden_size": 64}})";
  EXPECT_THAT(Refusal(json, "model.encoder.layers.0.self_attn."), HasSubstr("'sliding_window' is set in a model that"));
  const LayerSettings full = Parse(json, "model.encoder.layers.1.self_attn.");
  EXPECT_EQ(*full.causal, Causality::kNone);
  EXPECT_EQ(*full.softcap, 50);
  EXPECT_EQ(*full.scale, 0.0625);
  const LayerSettings decoder = Parse(json, "model.decoder.layers.0.self_attn.");
  EXPECT_EQ(*decoder.causal, Causality::kBottomRight);
  EXPECT_EQ(Sides(decoder), std::pair(6L, -1L));
  const LayerSettings cross = Parse(json, "model.decoder.layers.0.cross_attn.");
  EXPECT_EQ(*cross.causal, Causality::kNone);
  EXPECT_FALSE(Turns(cross));
  EXPECT_EQ(*cross.softcap, 50);
  EXPECT_THAT(Refusal(R"({"model_type": "t5gemma2", "decoder": {"model_type": "t5gemma2_decoder"}})",
                      "model.decoder.layers.0.self_attn."),
              HasSubstr("one softmax goes over its own tokens and the encoder's"));
}

TEST(ModelWindows, KindsOfLayersThatGptNeosCodeDoesNotKnowAreRefused) {
  const auto json = [](const std::string& more) { return OfType("gpt_neo", R"("window_size": 8, )" + more); };
  const std::string types = json(R"("attention_types": [[["global"], 1], [[], 3], [["local", "global"], 2]])");
  EXPECT_EQ(Sides(Parse(types, "h.0.")), std::pair(-1L, -1L));
  EXPECT_EQ(Sides(Parse(types, "h.1.")), std::pair(7L, -1L));
  EXPECT_EQ(Sides(Parse(types, "h.4.")), std::pair(-1L, -1L));
  const std::string none = json(R"("attention_types": [[["global"], 0], [["local"], 1]])");
  EXPECT_EQ(Sides(Parse(none, "h.0.")), std::pair(7L, -1L));
  const std::string many = json(R"("attention_types": [[["local"], 5000]])");  // More layers than any model has.
  EXPECT_EQ(Sides(Parse(many, "h.4095.")), std::pair(7L, -1L));
  EXPECT_THAT(Refusal(many, "h.4096."), HasSubstr("'attention_types' has fewer entries"));
  const std::string layers = json(R"("attention_types": [[["global"], 2]], "attention_layers": ["local", "Local"])");
  EXPECT_EQ(Sides(Parse(layers, "h.0.")), std::pair(7L, -1L));
  EXPECT_THAT(Refusal(layers, "h.1."),
              HasSubstr(R"('attention_layers' has the entry "Local", which is neither local nor global)"));
  EXPECT_THAT(Refusal(json(R"("attention_layers": [")" + std::string(100, 'x') + R"("])"), "h.0."),
              HasSubstr("the entry \"" + std::string(63, 'x') + ", which is neither"));
  EXPECT_THAT(Refusal(json(R"("attention_types": [[["sparse"], 2]])"), "h.1."),
              HasSubstr(R"('attention_types' has the entry "sparse", which is neither local nor global)"));
  // What is left out would move all layers behind it.
  for (const char* const group : {R"(["global", 1])", R"([["global"]])", R"([["global"], "1"])", R"([["global"], 1.0])",
                                  R"([["global"], -1])", R"([["global"], 1, 1])", R"("global")", "null"}) {
    EXPECT_THAT(
        Refusal(json(std::string(R"("attention_types": [)") + group + R"(, [["local", "global"], 2]])"), "h.1."),
        HasSubstr("'attention_types' has the entry "))
        << group;
  }
}

TEST(ModelBases, GraniteWithWindowsHasABaseForEachLayer) {
  const auto json = [](const char* bases) {
    return OfType("granite_swa", std::string(R"("layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "layer_rope_theta": )") +
                                     bases);
  };
  EXPECT_EQ(Parse(json("[500, 0]"), "model.layers.0.").rotary->base, 500);
  EXPECT_FALSE(Turns(Parse(json("[500, 0]"), "model.layers.1.")));
  EXPECT_EQ(Sides(Parse(json("[500, 0]"), "model.layers.1.")), std::pair(127L, -1L));
  EXPECT_EQ(Parse(json("null"), "model.layers.1.").rotary->base, 10000);
  EXPECT_EQ(*Parse(json("[7, 7]"), "model.layers.0.").scale, 1);
  EXPECT_THAT(Refusal(json("[500]"), "model.layers.1."), HasSubstr("'layer_rope_theta' has fewer entries"));
  EXPECT_THAT(Refusal(json(R"([500, "0"])"), "model.layers.1."), HasSubstr("'layer_rope_theta' has an entry"));
  EXPECT_THAT(Refusal(json("[500, -1]"), "model.layers.1."), HasSubstr("'layer_rope_theta' has an entry"));
  EXPECT_THAT(Refusal(OfType("granitemoe_swa", R"("rope_theta": 10000.0)"), "model.layers.0."),
              HasSubstr("'layer_types' is missing"));
}

TEST(ModelBases, CohereWithExpertsTurnsLayersWithoutThemAlsoWhereTheySeeAll) {
  const auto turns = [](const std::string& more, const char* prefix) {
    return Turns(
        Parse(OfType("cohere2_moe", R"("layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse"])" +
                                        more),
              prefix));
  };
  EXPECT_TRUE(turns("", "model.layers.0."));
  EXPECT_TRUE(turns("", "model.layers.1."));
  EXPECT_FALSE(turns("", "model.layers.2."));
  EXPECT_FALSE(turns(R"(, "prefix_dense_sliding_window_pattern": 4)", "model.layers.0."));
  EXPECT_THAT(Refusal(OfType("cohere2_moe", R"("layer_types": ["full_attention"])"), "model.layers.0."),
              HasSubstr("'mlp_layer_types' is missing"));
  EXPECT_THAT(Refusal(OfType("cohere2_moe", R"("layer_types": ["full_attention"], "mlp_layer_types": ["thick"])"),
                      "model.layers.0."),
              HasSubstr(R"('mlp_layer_types' has the entry "thick", which is neither dense nor sparse)"));
}

TEST(ModelBases, GraniteWithExpertsIsRefusedWithoutARotaryEmbedding) {
  for (const char* const type : {"granitemoe", "granitemoeshared"}) {
    EXPECT_TRUE(Turns(Parse(OfType(type, R"("position_embedding_type": "rope")"))));
    EXPECT_TRUE(Turns(Parse(OfType(type, R"("use_cache": true)"))));
    for (const char* const other : {"\"nope\"", "null"}) {
      EXPECT_THAT(Refusal(OfType(type, R"("position_embedding_type": )" + std::string(other))),
                  HasSubstr("'position_embedding_type' is"));
    }
  }
}

}  // namespace
}  // namespace attend::formats
