// Guards which rotary embedding a config.json is taken to mean.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(HuggingFaceRotary, ALlamaThatDoesNotMentionRotaryEmbeddingsHasThem) {
  EXPECT_EQ(Parse(R"({"model_type": "llama"})").rotary->base, 10000);
  EXPECT_EQ(Parse(R"({"model_type": "mixtral"})").rotary->base, 1000000);
  EXPECT_FALSE(Turns(Parse(R"({"model_type": "opt"})")));
}

TEST(HuggingFaceRotary, ParametersMayStandTogether) {  // As transformers 5 writes them.
  const LayerSettings config = Parse(R"({"model_type": "llama", "num_attention_heads": 4, "head_dim": 10,
                "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 7e4, "partial_rotary_factor": 0.4}})",
                                     "layers.0.", 10);
  EXPECT_EQ(config.rotary->base, 70000);
  EXPECT_EQ(config.rotary->linear_factor, 4);
  EXPECT_EQ(config.rotary->dim, 4);
}

TEST(HuggingFaceRotary, SharesOfAHeadAreTurned) {
  EXPECT_EQ(Parse(R"({"model_type": "gpt_neox", "num_attention_heads": 8, "rotary_pct": 0.25})", "", 64).rotary->dim,
            16);
  EXPECT_EQ(Parse(R"({"model_type": "phi", "num_attention_heads": 4, "head_dim": 32})", "", 32).rotary->dim, 16);
  const Rotary gptj = *Parse(R"({"model_type": "gptj", "n_head": 16, "n_embd": 4096, "rotary_dim": 64})").rotary;
  EXPECT_EQ(gptj.dim, 64);
  EXPECT_EQ(gptj.form, RotaryForm::kInterleaved);
  EXPECT_THAT(Refusal(R"({"model_type": "phi", "partial_rotary_factor": 0.5})"), HasSubstr("partial_rotary_factor"));
}

TEST(HuggingFaceRotary, ASmallShareIsNotTheWholeHead) {
  const auto refusal = [](const std::string& share) {
    return Refusal(R"({"model_type": "phi", "num_attention_heads": 4, "partial_rotary_factor": )" + share + "}", "", {},
                   64);
  };
  EXPECT_EQ(refusal("0.04"), "");  // Two elements.
  for (const char* const share : {"0.01", "1e-300"})
    EXPECT_THAT(refusal(share), HasSubstr("turns no element of a head of 64"));
  EXPECT_THAT(refusal("0.02"), HasSubstr("turns 1 elements of a head; odd numbers are not supported"));
  for (const char* const share : {"0", "-0.5", "1.5"})
    EXPECT_THAT(refusal(share), HasSubstr("'partial_rotary_factor' is not a share of a known size of a head"));
}

TEST(HuggingFaceRotary, UnknownScalingIsRefusedUnlessTheCallerKnowsBetter) {
  const std::string json = R"({"model_type": "llama", "rope_scaling": {"type": "helix", "factor": 4}})";
  EXPECT_THAT(Refusal(json), HasSubstr("'rope_scaling' has the type 'helix'"));
  CallerSettings caller;
  caller.rotary = true;
  EXPECT_EQ(Refusal(json, "", caller), "");
}

// Numbers of transformers 4.57's `_compute_yarn_parameters`, in float64.
TEST(HuggingFaceRotary, YarnIsGivenAsFrequencies) {
  const std::string scaling =
      R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64)";
  const Rotary rotary =
      *Parse(R"({"model_type": "qwen2", "rope_theta": 10000.0, "max_position_embeddings": 256, )" + scaling + "}}",
             "layers.0.", 16)
           .rotary;
  // low = floor(16 ln(64 / (32 2 pi)) / (2 ln 10000)) = floor(-0.99) -> 0, high = ceil(16 ln(64 / 2 pi) / (2 ln 10000))
  // = 3.
  ASSERT_EQ(rotary.frequencies.size(), 8U);
  for (int i = 0; i < 8; ++i) {
    const double plain = std::pow(10000, -i / 8.0), ramp = std::min(i / 3.0, 1.0);
    EXPECT_NEAR(rotary.frequencies[i], plain / 4 * ramp + plain * (1 - ramp), 1e-15) << i;
  }
  EXPECT_NEAR(rotary.attention_factor, 0.1 * std::log(4) + 1, 1e-15);
  EXPECT_EQ(rotary.original_context_length, 0);
  const auto factor = [&](const std::string& more) {
    return Parse(R"({"model_type": "qwen2", )" + scaling + more + "}}", "layers.0.", 16).rotary->attention_factor;
  };
  EXPECT_EQ(factor(R"(, "attention_factor": 1.5)"), 1.5);
  EXPECT_EQ(factor(R"(, "mscale": 1.0, "mscale_all_dim": 1.0)"), 1);
  EXPECT_NEAR(factor(R"(, "mscale": 0.7, "mscale_all_dim": 1.0)"), (0.07 * std::log(4) + 1) / (0.1 * std::log(4) + 1),
              1e-15);
  for (const char* const alone : {R"(, "mscale": 0.7)", R"(, "mscale_all_dim": 0.7)"})
    EXPECT_NEAR(factor(alone), 0.1 * std::log(4) + 1, 1e-15) << alone;
  // Without `truncate` the ramp begins and ends between pairs.
  const Rotary exact =
      *Parse(R"({"model_type": "qwen2", )" + scaling + R"(, "truncate": false}})", "layers.0.", 16).rotary;
  const double high = 16 * std::log(64 / (2 * M_PI)) / (2 * std::log(10000));
  const double ramp = 1 / high;
  EXPECT_NEAR(exact.frequencies[1], std::pow(10000, -1 / 8.0) * (1 - ramp + ramp / 4), 1e-15);
  EXPECT_THAT(Refusal(R"({"model_type": "qwen2", )" + scaling + "}}"), HasSubstr("needs the size of a head"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "rope_scaling": {"type": "yarn", "factor": 2}})", "", {}, 16),
              HasSubstr("'original_max_position_embeddings' is needed"));
}

TEST(HuggingFaceRotary, TheRampOfYarnIsWithinTheTurnedElements) {
  const auto frequencies = [](int base, int length, int head_dim) {
    return Parse(R"({"model_type": "qwen2", "rope_theta": )" + std::to_string(base) +
                     R"(, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": )" +
                     std::to_string(length) + "}}",
                 "layers.0.", head_dim)
        .rotary->frequencies;
  };
  // high = ceil(4 ln(256 / 2 pi) / (2 ln 10)) = ceil(3.22), one more than there are.
  const std::vector<double> cut = frequencies(10, 256, 4);
  ASSERT_EQ(cut.size(), 2U);
  EXPECT_NEAR(cut[1], std::pow(10, -0.5) * (2 / 3.0 + 1 / 3.0 / 4), 1e-15);
  // Both ends are 0: only the first pair is not divided.
  const std::vector<double> steep = frequencies(10000, 4, 16);
  ASSERT_EQ(steep.size(), 8U);
  EXPECT_EQ(steep[0], 1);
  for (int i = 1; i < 8; ++i) EXPECT_NEAR(steep[i], std::pow(10000, -i / 8.0) / 4, 1e-15) << i;
}

TEST(HuggingFaceRotary, LongRopeHasFactorsForShortAndLongTexts) {
  const std::string json = R"({"model_type": "phi3", "rope_theta": 10000.0, "max_position_embeddings": 128,
      "original_max_position_embeddings": 32,
      "rope_scaling": {"type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [4.0, 8.0])";
  const Rotary rotary = *Parse(json + "}}", "layers.0.", 4).rotary;
  EXPECT_THAT(rotary.frequencies, ElementsAre(1, 0.01 / 2));
  EXPECT_THAT(rotary.long_frequencies, ElementsAre(0.25, 0.01 / 8));
  EXPECT_EQ(rotary.original_context_length, 32);
  EXPECT_NEAR(rotary.attention_factor, std::sqrt(1 + std::log(4) / std::log(32)), 1e-15);
  EXPECT_THAT(Refusal(json + R"(, "factor": 3.0}})", "layers.0.", {}, 4), HasSubstr("'factor' is not"));
  EXPECT_EQ(Refusal(json + R"(, "factor": 3.0, "attention_factor": 1.0}})", "layers.0.", {}, 4), "");
  EXPECT_THAT(Refusal(json + "}}", "layers.0.", {}, 8), HasSubstr("must be a list of 4 numbers"));
}

TEST(HuggingFaceRotary, TheFactorOfLongRopeIsThatOfItsLengths) {
  const auto json = [](const std::string& lengths, const std::string& factor) {
    return R"({"model_type": "phi3", )" + lengths +
           R"(, "rope_scaling": {"type": "longrope", "short_factor": [1, 1], "long_factor": [2, 2])" + factor + "}}";
  };
  const auto of_lengths = [&](int longest, int original) {
    return Parse(json(R"("max_position_embeddings": )" + std::to_string(longest) +
                          R"(, "original_max_position_embeddings": )" + std::to_string(original),
                      ""),
                 "layers.0.", 4)
        .rotary->attention_factor;
  };
  EXPECT_NEAR(of_lengths(64, 32), std::sqrt(1 + std::log(2) / std::log(32)), 1e-15);
  EXPECT_EQ(of_lengths(32, 32), 1);
  EXPECT_EQ(of_lengths(16, 32), 1);
  EXPECT_EQ(of_lengths(1, 1), 1);
  const std::string original = R"("original_max_position_embeddings": 32)";
  EXPECT_THAT(Refusal(json(original, ""), "layers.0.", {}, 4), HasSubstr("'max_position_embeddings' is needed"));
  EXPECT_NEAR(Parse(json(original, R"(, "factor": 4)"), "layers.0.", 4).rotary->attention_factor,
              std::sqrt(1 + std::log(4) / std::log(32)), 1e-15);
  // One millionth beside the lengths' own is the same.
  const std::string lengths = R"("max_position_embeddings": 1000000, "original_max_position_embeddings": 2)";
  for (const char* const factor : {"499999.5", "500000", "500000.5"})
    EXPECT_EQ(Refusal(json(lengths, std::string(R"(, "factor": )") + factor), "layers.0.", {}, 4), "") << factor;
  for (const char* const factor : {"499999.25", "500000.75"}) {
    EXPECT_THAT(Refusal(json(lengths, std::string(R"(, "factor": )") + factor), "layers.0.", {}, 4),
                HasSubstr("'factor' is not max_position_embeddings by original_max_position_embeddings"));
  }
}

// Phi-3.5-MoE's own config.json, with heads of 4 in place of 128. `PhimoeRotaryEmbedding` of transformers multiplies by
// the two numbers and drops the attention factor.
std::string PhiMoe(const std::string& magnitudes,
                   const std::string& beside = R"("max_position_embeddings": 131072, )") {
  return R"({"model_type": "phimoe", "num_attention_heads": 32, "rope_theta": 10000.0, )" + beside +
         R"("original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope", )" + magnitudes +
         R"("original_max_position_embeddings": 4096, "short_factor": [1.0, 2.0], "long_factor": [4.0, 8.0]}})";
}

TEST(HuggingFaceRotary, PhiMoeMultipliesByItsOwnNumbers) {
  const std::string published = PhiMoe(R"("short_mscale": 1.243163121016122, "long_mscale": 1.243163121016122, )");
  const LayerSettings layer = Parse(published, "layers.0.", 4);
  EXPECT_EQ(layer.rotary->attention_factor, 1.243163121016122);
  EXPECT_THAT(layer.rotary->frequencies, ElementsAre(1, 0.01 / 2));
  EXPECT_THAT(layer.rotary->long_frequencies, ElementsAre(0.25, 0.01 / 8));
  EXPECT_EQ(layer.rotary->original_context_length, 4096);
  EXPECT_THAT(layer.notes, ElementsAre(HasSubstr("transformers 5 keeps short_factor")));
  const std::string more = R"("short_mscale": 1.5, "long_mscale": 1.5, "attention_factor": 3.0, )";
  EXPECT_EQ(Parse(PhiMoe(more, ""), "layers.0.", 4).rotary->attention_factor, 1.5);
  const std::string small = R"("short_mscale": 0.001, "long_mscale": 0.001, )";
  EXPECT_EQ(Parse(PhiMoe(small, ""), "layers.0.", 4).rotary->attention_factor, 0.001);
}

TEST(HuggingFaceRotary, PhiMoeWithoutOneNumberForAllLengthsIsRefused) {
  for (const char* const magnitudes :
       {"", R"("short_mscale": 1.5, )", R"("long_mscale": 1.5, )", R"("short_mscale": 1.5, "long_mscale": 1.25, )",
        R"("short_mscale": 0, "long_mscale": 0, )", R"("short_mscale": null, "long_mscale": null, )"}) {
    EXPECT_THAT(Refusal(PhiMoe(magnitudes), "layers.0.", {}, 4), HasSubstr("'short_mscale' and 'long_mscale'"));
  }
}

TEST(HuggingFaceRotary, TheOriginalLengthOfAPhiMoeIsThatOfItsScaling) {
  const auto refusal = [](const std::string& beside, const std::string& within) {
    return Refusal(R"({"model_type": "phimoe", )" + beside + R"("max_position_embeddings": 64, "rope_scaling": {)" +
                       within + R"("rope_type": "longrope", "short_mscale": 1.5, "long_mscale": 1.5,
                       "short_factor": [1, 1], "long_factor": [2, 2]}})",
                   "layers.0.", {}, 4);
  };
  const std::string length = R"("original_max_position_embeddings": 8, )";
  EXPECT_EQ(refusal("", length), "");
  EXPECT_EQ(refusal(length, length), "");
  EXPECT_THAT(refusal(length, ""), HasSubstr("'original_max_position_embeddings' is not the same"));
}

TEST(HuggingFaceRotary, SomeModelsHaveLongRopeAlone) {
  for (const std::string type : {"phi3", "phimoe"}) {
    const auto refusal = [&](const std::string& scaling) {
      return Refusal(
          R"({"model_type": ")" + type + R"(", "max_position_embeddings": 64, "rope_scaling": )" + scaling + "}",
          "layers.0.", {}, 4);
    };
    // transformers takes a Phi-3's yarn for longrope.
    EXPECT_THAT(refusal(R"({"type": "yarn", "factor": 2.0})"), HasSubstr("'yarn'; the code of " + type));
    EXPECT_THAT(refusal(R"({"rope_type": "linear", "factor": 2.0})"), HasSubstr("has longrope alone"));
    EXPECT_EQ(refusal(R"({"rope_type": "default"})"), "");
  }
}

TEST(HuggingFaceRotary, DynamicScalingDependsOnTheLength) {
  const Rotary rotary = *Parse(R"({"model_type": "llama", "max_position_embeddings": 16,
                                   "rope_scaling": {"type": "dynamic", "factor": 2.0}})",
                               "layers.0.", 8)
                             .rotary;
  EXPECT_EQ(rotary.dynamic_factor, 2);
  EXPECT_EQ(rotary.original_context_length, 16);
  EXPECT_EQ(rotary.base, 10000);
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}})", "", {}, 8),
              HasSubstr("max_position_embeddings"));
}

TEST(HuggingFaceRotary, SomeLayersHaveNoRotaryEmbedding) {
  const std::string smollm = R"({"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0]})";
  EXPECT_TRUE(Turns(Parse(smollm, "layers.2.")));
  EXPECT_FALSE(Turns(Parse(smollm, "layers.3.")));
  const std::string truths = R"({"model_type": "smollm3", "no_rope_layers": [true, true, true, false]})";
  EXPECT_TRUE(Turns(Parse(truths, "layers.2.")));
  EXPECT_FALSE(Turns(Parse(truths, "layers.3.")));
  EXPECT_FALSE(Turns(Parse(R"({"model_type": "smollm3"})", "layers.3.")));
  EXPECT_TRUE(Turns(Parse(R"({"model_type": "smollm3"})", "layers.4.")));
  for (const char* const type : {"cohere2", "exaone4"}) {
    const std::string json = std::string(R"({"model_type": ")") + type + R"(", "sliding_window": 4})";
    EXPECT_TRUE(Turns(Parse(json, "layers.0.")));
    EXPECT_FALSE(Turns(Parse(json, "layers.3.")));
  }
  EXPECT_TRUE(Turns(Parse(R"({"model_type": "exaone4", "sliding_window": null})", "layers.3.")));
  EXPECT_FALSE(Turns(Parse(R"({"model_type": "cohere2", "sliding_window": null})", "layers.3.")));
  EXPECT_FALSE(Turns(Parse(R"({"model_type": "granitemoehybrid"})")));
  EXPECT_TRUE(Turns(Parse(R"({"model_type": "granitemoehybrid", "position_embedding_type": "rope"})")));
}

TEST(HuggingFaceRotary, AnEntryThatIsNeitherYesNorNoIsRefused) {
  for (const char* const entry : {"2", "-1", "0.5", "1.0", "\"1\"", "null", "[1]"}) {
    const std::string json = std::string(R"({"model_type": "smollm3", "no_rope_layers": [1, )") + entry + ", 1]}";
    EXPECT_THAT(Refusal(json, "layers.1."),
                HasSubstr(std::string("'no_rope_layers' has the entry ") + entry + ", which is neither 0 nor 1"));
    EXPECT_TRUE(Turns(Parse(json, "layers.2.")));
  }
}

TEST(HuggingFaceRotary, FormsOfRotaryEmbeddings) {
  for (const char* const type : {"ernie4_5", "ernie4_5_moe", "helium", "glm", "cohere2", "gptj"}) {
    const LayerSettings layer = Parse(std::string(R"({"model_type": ")") + type + R"("})", "layers.0.", 64);
    EXPECT_EQ(layer.rotary->form, RotaryForm::kInterleaved) << type;
  }
}

TEST(HuggingFaceRotary, WhatIsTurnedFitsIntoAHead) {
  const auto refusal = [](const std::string& dim) {
    return Refusal(R"({"model_type": "gptj", "n_head": 1, "rotary_dim": )" + dim + "}", "h.0.", {}, 16);
  };
  EXPECT_EQ(refusal("16"), "");
  EXPECT_EQ(refusal("1"), "");
  EXPECT_THAT(Refusal(R"({"model_type": "gptj", "n_head": 1, "rotary_dim": 2})", "h.0.", {}, 1),
              HasSubstr("'rotary_dim' is 2; it must be at least 1 and at most the size of a head"));
  // Frequencies of so many elements would take all memory.
  for (const char* const dim : {"0", "17", "2147483647", "null"})
    EXPECT_THAT(refusal(dim), HasSubstr("'rotary_dim' is"));
  EXPECT_THAT(refusal("null"), HasSubstr("'rotary_dim' is null"));
}

// GPT-J's code reads rotary_dim and no other key of these, whatever a file has.
TEST(HuggingFaceRotary, WhatTheCodeOfAModelDoesNotReadIsRefusedUnlessItSaysWhatThatCodeDoes) {
  const std::string chat = R"(chatglm", "multi_query_attention": true, "kv_channels": 64, "padded_vocab_size": 151552,
                              "rope_ratio": 2, "x": ")";
  for (const std::string& type : {std::string("gptj"), std::string("codegen"), std::string("roformer"), chat,
                                  std::string(R"(esm", "position_embedding_type": "rotary)")}) {
    const auto refusal = [&](const std::string& more, const CallerSettings& caller = {}) {
      return Refusal(
          R"({"model_type": ")" + type + R"(", "num_attention_heads": 4, "max_position_embeddings": 64)" + more + "}",
          "layers.0.", caller, 64);
    };
    EXPECT_EQ(refusal(""), "") << type;
    EXPECT_EQ(refusal(R"(, "rope_theta": 10000, "rope_scaling": null)"), "") << type;
    EXPECT_EQ(refusal(R"(, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4})"), "") << type;
    const std::string within = R"(, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4})";
    for (const std::string& base : {std::string(R"(, "rope_theta": 50000)"), within}) {
      EXPECT_THAT(refusal(base), AllOf(HasSubstr("'rope_theta' is 50000"), HasSubstr("has 10000"))) << type;
      CallerSettings caller;
      caller.rotary = true;
      EXPECT_EQ(refusal(base, caller), "") << type;
    }
    EXPECT_THAT(refusal(R"(, "partial_rotary_factor": 0.25)"), HasSubstr("'partial_rotary_factor' is")) << type;
    EXPECT_THAT(refusal(R"(, "rope_scaling": {"rope_type": "linear", "factor": 2.0})"),
                HasSubstr("'rope_scaling' has the type 'linear', and the code of"))
        << type;
    EXPECT_THAT(refusal(R"(, "rotary_emb_base": 10000)"), HasSubstr("'rotary_emb_base' is set")) << type;
  }
  // GLM-4's code multiplies by the ratio, whatever else there is.
  EXPECT_EQ(Parse(R"({"model_type": ")" + chat + R"(", "rope_parameters": {"rope_theta": 1e4}})", "", 64).rotary->base,
            20000);
  EXPECT_THAT(Refusal(R"({"model_type": "gptj", "partial_rotary_factor": 1.0})", "h.0.", {}, 64),
              HasSubstr("'partial_rotary_factor' is set, and the code of gptj models reads rotary_dim alone"));
}

// chatglm2-6b-32k divides positions by the ratio, chatglm3-6b-32k and glm-4-9b multiply the base by it.
TEST(HuggingFaceRotary, ARatioOfChatGlmIsReadWhereTheVocabularySaysThatItIsGlm4s) {
  const std::string layer = "transformer.encoder.layers.0.self_attention.";
  const auto json = [](const std::string& more) {
    return R"({"model_type": "chatglm", "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": true,
               "multi_query_group_num": 2, )" +
           more + "}";
  };
  for (const char* const vocabulary :
       {"", R"("padded_vocab_size": 65024, )", R"("padded_vocab_size": 65280, )", R"("padded_vocab_size": 151551, )"}) {
    const std::string file = json(vocabulary + std::string(R"("rope_ratio": 16)"));
    EXPECT_THAT(Refusal(file, layer, {}, 128), HasSubstr("'rope_ratio' is not 1: the code of ChatGLM2"));
    CallerSettings caller;
    caller.rotary = true;
    EXPECT_EQ(Refusal(file, layer, caller, 128), "");
  }
  EXPECT_EQ(Parse(json(R"("padded_vocab_size": 65024)"), layer, 128).rotary->base, 10000);
  EXPECT_EQ(Parse(json(R"("padded_vocab_size": 65024, "rope_ratio": 1)"), layer, 128).rotary->base, 10000);
  EXPECT_EQ(Parse(json(R"("padded_vocab_size": 151552, "rope_ratio": 500)"), layer, 128).rotary->base, 5e6);
  EXPECT_THAT(Refusal(json(R"("padded_vocab_size": "151552", "rope_ratio": 500)"), layer, {}, 128),
              HasSubstr("'padded_vocab_size' is not a whole number"));
}

TEST(HuggingFaceRotary, ANumberBesideRopeParametersMustBeTheOneWithin) {
  const auto refusal = [](const std::string& type, const std::string& beside) {
    return Refusal(R"({"model_type": ")" + type + R"(", "rope_parameters": {"rope_type": "default", "rope_theta": 5e4,
                       "partial_rotary_factor": 0.5}, )" +
                       beside + "}",
                   "layers.0.", {}, 64);
  };
  EXPECT_EQ(refusal("glm", R"("rope_theta": 50000.0, "partial_rotary_factor": 0.5)"), "");
  EXPECT_THAT(refusal("glm", R"("rope_theta": 10000.0)"), HasSubstr("'rope_theta' is not the rope_theta of rope_para"));
  EXPECT_THAT(refusal("glm", R"("partial_rotary_factor": 1.0)"), HasSubstr("'partial_rotary_factor' is not the"));
  EXPECT_THAT(refusal("gpt_neox", R"("rotary_emb_base": 10000.0)"), HasSubstr("'rotary_emb_base' is not the rope_th"));
}

TEST(HuggingFaceRotary, TheNamesOfGptNeoxAreThoseOfItsKinAlone) {
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "rope_theta": 500000.0, "rotary_emb_base": 10000})"),
              HasSubstr("'rotary_emb_base' is set"));
  EXPECT_THAT(Refusal(R"({"model_type": "llama", "rotary_pct": 0.25})", "", {}, 64), HasSubstr("'rotary_pct' is set"));
  for (const std::string type : {"gpt_neox", "gpt_neox_japanese"}) {
    const auto json = [&](const std::string& more) { return R"({"model_type": ")" + type + R"(", )" + more + "}"; };
    // As transformers 4 writes a Pythia.
    const Rotary rotary = *Parse(json(R"("rotary_emb_base": 5000, "rope_theta": 5000, "rotary_pct": 0.5,
                                         "partial_rotary_factor": 0.5)"),
                                 "layers.0.", 64)
                               .rotary;
    EXPECT_EQ(rotary.base, 5000);
    EXPECT_EQ(rotary.dim, 32);
    // As transformers 5 does.
    EXPECT_EQ(
        Parse(json(R"("rope_parameters": {"rope_theta": 7e3, "partial_rotary_factor": 0.5})"), "", 64).rotary->base,
        7000);
    const auto refusal = [&](const std::string& more) { return Refusal(json(more), "layers.0.", {}, 64); };
    EXPECT_THAT(refusal(R"("rotary_emb_base": 10000, "rope_theta": 5000)"),
                HasSubstr("'rope_theta' is not what rotary_emb_base is"));
    EXPECT_THAT(refusal(R"("rope_theta": 5000)"), HasSubstr("'rope_theta' is not what rotary_emb_base is"));
    EXPECT_THAT(refusal(R"("rotary_pct": 0.25, "partial_rotary_factor": 0.5)"),
                HasSubstr("'partial_rotary_factor' is not what rotary_pct is"));
  }
}

TEST(HuggingFaceRotary, LengthsThatVersionsReadDifferentlyAreRefused) {
  const auto refusal = [](const std::string& form, const std::string& type, const std::string& beside, int within) {
    const std::string of_type = type == "llama3"     ? R"("low_freq_factor": 1, "high_freq_factor": 4)"
                                : type == "longrope" ? R"("short_factor": [1, 1], "long_factor": [2, 2])"
                                                     : R"("attention_factor": 1)";
    const std::string sure = type == "longrope" ? R"(, "attention_factor": 1)" : "";
    return Refusal(R"({"model_type": "llama", "num_attention_heads": 1, "max_position_embeddings": 64, )" + beside +
                       "\"" + form + R"(": {"rope_theta": 1e4, "factor": 8.0, )" + of_type + sure +
                       R"(, "rope_type": ")" + type + R"(", "original_max_position_embeddings": )" +
                       std::to_string(within) + "}}",
                   "layers.0.", {}, 4);
  };
  const std::string beside = R"("original_max_position_embeddings": 8, )";
  for (const char* const type : {"yarn", "longrope", "llama3"}) {
    const bool is_long = std::string(type) == "longrope";
    // transformers 4 does not look for longrope's in rope_scaling, and for that of others nowhere else.
    EXPECT_EQ(refusal("rope_scaling", type, "", 8).empty(), !is_long) << type;
    EXPECT_EQ(refusal("rope_scaling", type, beside, 16).empty(), is_long) << type;
    EXPECT_EQ(refusal("rope_scaling", type, beside, 8), "") << type;
    EXPECT_EQ(refusal("rope_scaling", type, "", 64), "") << type;
    EXPECT_EQ(refusal("rope_parameters", type, beside, 16), "") << type;  // Of transformers 5 alone.
  }
  EXPECT_THAT(refusal("rope_scaling", "yarn", beside, 16),
              HasSubstr("'original_max_position_embeddings' is not the same"));
}

TEST(HuggingFaceRotary, ALengthBesideRopeParametersGoesBefore) {
  const Rotary rotary = *Parse(R"({"model_type": "llama", "max_position_embeddings": 64,
      "original_max_position_embeddings": 8, "rope_parameters": {"rope_theta": 1e4, "rope_type": "llama3", "factor": 2.0,
      "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 16}})",
                               "layers.0.", 4)
                             .rotary;
  EXPECT_EQ(rotary.llama3->original_context_length, 8);
}

}  // namespace
}  // namespace attend::formats
