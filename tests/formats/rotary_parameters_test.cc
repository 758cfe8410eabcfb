// Guards that each key of rope_scaling and rope_parameters is applied, or known to change nothing, or refuses the
// layer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/formats/parsed_config.h"

namespace attend::formats {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Model(const std::string& type, const std::string& keys) {
  return R"({"model_type": ")" + type + R"(", "max_position_embeddings": 64, )" + keys + "}";
}

// Of a Llama whose rope_scaling is this.
std::string RefusalOf(const std::string& scaling) {
  return Refusal(Model("llama", R"("rope_scaling": )" + scaling), "layers.0.", {}, 4);
}

constexpr const char* kLinear = R"("rope_type": "linear", "factor": 2.0)";
constexpr const char* kDynamic = R"("rope_type": "dynamic", "factor": 2.0)";
constexpr const char* kYarn = R"("rope_type": "yarn", "factor": 2.0)";
constexpr const char* kLlama3 =
    R"("rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0)";
constexpr const char* kLong = R"("rope_type": "longrope", "short_factor": [1, 1], "long_factor": [2, 2])";
constexpr const char* kAll[] = {R"("rope_type": "default")", kLinear, kDynamic, kYarn, kLlama3, kLong};

std::string With(const std::string& scaling, const std::string& more) { return "{" + scaling + ", " + more + "}"; }

TEST(RotaryParameters, AKeyThatTheTypeDoesNotReadIsRefused) {
  for (const std::string scaling : kAll) {
    EXPECT_EQ(RefusalOf("{" + scaling + "}"), "");
    EXPECT_THAT(RefusalOf(With(scaling, R"("scale_queries": true)")), HasSubstr("the key 'scale_queries'"));
    EXPECT_THAT(RefusalOf(With(scaling, R"("alpha": 1000.0)")), HasSubstr("the key 'alpha'"));  // HunYuan's.
    EXPECT_THAT(RefusalOf(With(scaling, R"("interleaved": true)")), HasSubstr("the key 'interleaved'"));
    EXPECT_EQ(RefusalOf(With(scaling, R"("alpha": null)")), "");
  }
}

TEST(RotaryParameters, AKeyOfAnotherTypeIsRefused) {
  const auto refused = [](const std::string& scaling, const std::string& more) {
    EXPECT_THAT(RefusalOf(With(scaling, more)), AllOf(HasSubstr("'rope_scaling' has the type"), HasSubstr("the key")));
  };
  refused(R"("type": "mrope")", R"("factor": 4)");
  refused(R"("rope_type": "default")", R"("original_max_position_embeddings": 64)");
  refused(kLinear, R"("attention_factor": 1.5)");
  refused(kDynamic, R"("mscale": 1.0)");
  refused(kLlama3, R"("beta_fast": 32)");
  refused(kYarn, R"("low_freq_factor": 1.0)");
  refused(kLong, R"("truncate": false)");
  refused(kLong, R"("short_mscale": 1.5)");  // PhiMoE's.
}

TEST(RotaryParameters, WhatPublishedFilesHaveIsTaken) {
  const std::string sections = R"("mrope_section": [16, 24, 24], "mrope_interleaved": true, "interleaved": true)";
  for (const std::string scaling : kAll) {
    EXPECT_EQ(RefusalOf(With(scaling, sections + R"(, "rope_theta": 1e4, "partial_rotary_factor": 1.0)")), "");
  }
  const std::string length = R"("original_max_position_embeddings": 64)";
  for (const char* const scaling : {kLinear, kDynamic, kYarn, kLlama3, kLong}) {
    EXPECT_EQ(RefusalOf(With(scaling, length)), "");
  }
  EXPECT_EQ(RefusalOf(With(kYarn, R"("finetuned": true, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
                                     "mscale_all_dim": 1.0, "truncate": false, "attention_factor": 1.5)")),
            "");
  EXPECT_EQ(RefusalOf(R"({"rope_type": "default", "type": "mrope", "mrope_section": [16, 24, 24]})"), "");
  EXPECT_EQ(RefusalOf(With(kLong, R"("type": "su", "attention_factor": 1.5, "factor": 1.0)")), "");
}

TEST(RotaryParameters, WithoutATypeThereIsNoScaling) {
  EXPECT_THAT(RefusalOf(R"({"factor": 8.0})"),
              HasSubstr("'rope_scaling' has no type (rope_type) and the key 'factor'"));
  EXPECT_THAT(RefusalOf(R"({"type": null, "scale_queries": 1})"), HasSubstr("has no type"));
  EXPECT_EQ(RefusalOf("{}"), "");
  EXPECT_EQ(RefusalOf(R"({"rope_theta": 1e4, "partial_rotary_factor": 1.0})"), "");
  EXPECT_THAT(RefusalOf(R"({"rope_type": "yarn", "type": "linear", "factor": 2.0})"),
              HasSubstr("has the rope_type 'yarn' and the type 'linear'"));
}

TEST(RotaryParameters, NumbersOfAScalingMustBeThere) {
  EXPECT_THAT(RefusalOf(R"({"type": "linear"})"), HasSubstr("'factor' of a linear scaling must be"));
  EXPECT_THAT(RefusalOf(R"({"type": "linear", "factor": 0})"), HasSubstr("'factor' of a linear scaling must be"));
  const auto llama3 = [](const std::string& numbers) { return RefusalOf(With(R"("type": "llama3")", numbers)); };
  EXPECT_THAT(llama3(R"("low_freq_factor": 1, "high_freq_factor": 4)"), HasSubstr("'factor' of llama3"));
  EXPECT_THAT(llama3(R"("factor": 8, "high_freq_factor": 4)"), HasSubstr("'low_freq_factor' of llama3"));
  EXPECT_THAT(llama3(R"("factor": 8, "low_freq_factor": 1)"), HasSubstr("'high_freq_factor' of llama3"));
  EXPECT_THAT(RefusalOf(With(kYarn, R"("attention_factor": 0)")), HasSubstr("'attention_factor' must be positive"));
}

// Just inside of each bound and just outside of it.
TEST(RotaryParameters, NumbersOfAScalingHaveBounds) {
  const auto linear = [](const std::string& factor) {
    return RefusalOf(R"({"type": "linear", "factor": )" + factor + "}");
  };
  EXPECT_EQ(linear("0.001"), "");
  EXPECT_THAT(linear("-0.001"), HasSubstr("'factor' of a linear scaling must be"));
  const auto yarn = [](const std::string& numbers) { return RefusalOf(With(R"("type": "yarn")", numbers)); };
  EXPECT_EQ(yarn(R"("factor": 1)"), "");
  EXPECT_THAT(yarn(R"("factor": 0.999)"), HasSubstr("'factor' of yarn must be at least 1"));
  EXPECT_THAT(yarn(R"("mscale": 1.0)"), HasSubstr("'factor' of yarn must be at least 1"));
  EXPECT_EQ(yarn(R"("factor": 2, "attention_factor": 0.001)"), "");
  EXPECT_EQ(yarn(R"("factor": 2, "original_max_position_embeddings": 1)"), "");
  EXPECT_THAT(yarn(R"("factor": 2, "original_max_position_embeddings": 0)"),
              HasSubstr("'original_max_position_embeddings' is needed for the scaling of rotary embeddings"));
  const auto llama3 = [](const std::string& factor, const std::string& low, const std::string& high) {
    return RefusalOf(R"({"type": "llama3", "factor": )" + factor + R"(, "low_freq_factor": )" + low +
                     R"(, "high_freq_factor": )" + high + "}");
  };
  EXPECT_EQ(llama3("1", "0.001", "0.002"), "");
  EXPECT_THAT(llama3("0.999", "1", "4"), HasSubstr("'factor' of llama3 must be at least 1"));
  EXPECT_THAT(llama3("1", "0", "4"), HasSubstr("'low_freq_factor' of llama3 must be positive"));
  EXPECT_THAT(llama3("1", "4", "4"), HasSubstr("'high_freq_factor' of llama3 must be above low_freq_factor"));
  const auto longrope = [](const std::string& of_short, const std::string& of_long) {
    return RefusalOf(R"({"type": "longrope", "short_factor": [1, )" + of_short + R"(], "long_factor": [1, )" + of_long +
                     "]}");
  };
  EXPECT_EQ(longrope("0.001", "0.001"), "");
  for (const char* const entry : {"0", "-1", "\"1\""}) {
    EXPECT_THAT(longrope(entry, "1"), HasSubstr("'short_factor' has an entry that is not positive")) << entry;
    EXPECT_THAT(longrope("1", entry), HasSubstr("'long_factor' has an entry that is not positive")) << entry;
  }
}

TEST(RotaryParameters, NumbersThatAScalingTakesFromBesideItHaveBounds) {
  const auto dynamic = [](const std::string& factor, const std::string& beside, std::int64_t head_dim = 4) {
    return Refusal(R"({"model_type": "llama", )" + beside + R"(, "rope_scaling": {"type": "dynamic")" + factor + "}}",
                   "layers.0.", {}, head_dim);
  };
  const std::string factor = R"(, "factor": 1)", length = R"("max_position_embeddings": 1)";
  EXPECT_EQ(dynamic(factor, length), "");
  for (const char* const other : {R"(, "factor": 0.999)", ""}) {
    EXPECT_THAT(dynamic(other, length), HasSubstr("needs a factor of at least 1, and max_position_embeddings"));
  }
  EXPECT_THAT(dynamic(factor, R"("max_position_embeddings": 0)"), HasSubstr("needs a factor of at least 1, and max_"));
  EXPECT_EQ(dynamic(factor, length + R"(, "rope_theta": 1.001)"), "");
  EXPECT_THAT(dynamic(factor, length + R"(, "rope_theta": 1)"), HasSubstr("'rope_theta' must be above 1 for a scal"));
  EXPECT_EQ(dynamic(factor, length, 2), "");
  EXPECT_THAT(dynamic(factor, length, 1), HasSubstr("'rope_scaling' needs the size of a head"));
}

TEST(RotaryParameters, WhatIsQuotedOfAFileIsCut) {
  const std::string x(100, 'x');
  EXPECT_THAT(RefusalOf(R"({"type": ")" + x + "\"}"), HasSubstr("the type '" + std::string(32, 'x') + "'; default"));
  EXPECT_THAT(RefusalOf(R"({"rope_type": ")" + x + R"(", "type": "y)" + x + "\"}"),
              HasSubstr("the rope_type '" + std::string(32, 'x') + "' and the type 'y" + std::string(31, 'x') + "'."));
  EXPECT_THAT(RefusalOf("{\"" + x + "\": 1}"), HasSubstr("the key '" + std::string(64, 'x') + "', and what"));
  EXPECT_THAT(RefusalOf(R"({"full_attention": {}, ")" + x + "\": 1}"),
              HasSubstr("beside them '" + std::string(64, 'x') + "', which"));
  EXPECT_THAT(Refusal(R"({"model_type": ")" + x + "\"}"),
              HasSubstr("type '" + std::string(64, 'x') + "' is not known"));
  EXPECT_THAT(Refusal(R"({"model_type": "bert", "position_embedding_type": ")" + x + "\"}"),
              HasSubstr("is " + std::string(32, 'x') + ", which is not supported"));
  EXPECT_THAT(Refusal(R"({"model_type": "llava", "text_config": {"model_type": "llama"}})", "projector." + x + x + x),
              HasSubstr("the layer at 'projector." + std::string(190, 'x') + "' joins"));
}

TEST(RotaryParameters, TwoDictionariesMustBeTheSame) {
  const auto refusal = [](const std::string& four, const std::string& five) {
    return Refusal(Model("llama", R"("rope_scaling": )" + four + R"(, "rope_parameters": )" + five), "", {}, 4);
  };
  EXPECT_THAT(refusal(R"({"type": "linear", "factor": 2})", R"({"rope_type": "default"})"),
              HasSubstr("'rope_scaling' is not what rope_parameters is"));
  EXPECT_THAT(refusal(R"({"type": "linear", "factor": 2})", "{}"), HasSubstr("is not what rope_parameters is"));
  EXPECT_EQ(refusal(R"({"type": "linear", "factor": 2})", R"({"type": "linear", "factor": 2})"), "");
  EXPECT_EQ(refusal("null", R"({"rope_type": "default"})"), "");
  EXPECT_EQ(refusal("{}", R"({"rope_type": "default"})"), "");
  EXPECT_EQ(refusal(R"({"type": "linear", "factor": 2})", "null"), "");
}

// transformers 4 does not look for these two in rope_scaling.
TEST(RotaryParameters, ABaseWithinRopeScalingMustBeThatBesideIt) {
  const auto refusal = [](const std::string& beside, const std::string& within) {
    return Refusal(Model("llama", beside + R"("rope_scaling": {"rope_type": "default", )" + within + "}"), "", {}, 8);
  };
  EXPECT_THAT(refusal("", R"("rope_theta": 5e5)"), HasSubstr("'rope_theta' is in rope_scaling"));
  EXPECT_THAT(refusal(R"("rope_theta": 1e6, )", R"("rope_theta": 5e5)"), HasSubstr("'rope_theta' is in rope_scaling"));
  EXPECT_EQ(refusal(R"("rope_theta": 5e5, )", R"("rope_theta": 5e5)"), "");
  const std::string half = R"("partial_rotary_factor": 0.5)";
  EXPECT_THAT(refusal("", half), HasSubstr("'partial_rotary_factor' is in rope_scaling"));
  EXPECT_EQ(refusal(half + ", ", half), "");
}

TEST(RotaryParameters, EachKindOfLayerHasItsOwn) {
  const auto refusal = [](const std::string& parameters, const std::string& type = "mellum") {
    return Refusal(Model(type, R"("layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8,
                                  "rope_parameters": )" +
                                   parameters),
                   "layers.1.", {}, 4);
  };
  const std::string both = R"("full_attention": {"rope_theta": 9.0}, "sliding_attention": {"rope_theta": 5.0)";
  EXPECT_EQ(refusal("{" + both + R"(}, "linear_attention": null, "chunked_attention": {"rope_theta": 2.0}})"), "");
  EXPECT_THAT(refusal("{" + both + R"(, "factor": 2}})"), HasSubstr("has no type (rope_type) and the key 'factor'"));
  EXPECT_THAT(refusal("{" + both + R"(}, "factor": 2})"), HasSubstr("beside them 'factor'"));
  EXPECT_THAT(refusal("{" + both + R"(}, "others": {}})"), HasSubstr("beside them 'others'"));
  EXPECT_THAT(refusal(R"({"full_attention": {"rope_theta": 9.0}})"), HasSubstr("none for 'sliding_attention'"));
  EXPECT_THAT(refusal(R"({"full_attention": {"rope_theta": 9.0}, "sliding_attention": null})"),
              HasSubstr("none for 'sliding_attention'"));
  EXPECT_EQ(refusal(R"({"full_attention": {"rope_theta": 9.0}})", "gemma3_text"), "");  // It has a base of its own.
  // transformers 5 takes 500000 for an OLMo 3's layers with a window.
  EXPECT_THAT(refusal(R"({"full_attention": {}, "sliding_attention": {}}, "rope_theta": 1e4)", "olmo3"),
              HasSubstr("'rope_theta' is not 500000"));
}

TEST(RotaryParameters, TruncateIsReadBesideTheKinds) {
  const auto refusal = [](const std::string& within, const std::string& beside) {
    return Refusal(Model("mellum", R"("layer_types": ["full_attention"], "sliding_window": 8, "rope_parameters":
                                      {"full_attention": {"rope_type": "yarn", "factor": 2, "rope_theta": 1e4)" +
                                       within + "}" + beside + "}"),
                   "layers.0.", {}, 4);
  };
  EXPECT_EQ(refusal("", R"(, "truncate": false)"), "");
  EXPECT_EQ(refusal(R"(, "truncate": true)", ""), "");
  EXPECT_EQ(refusal(R"(, "truncate": false)", R"(, "truncate": false)"), "");
  EXPECT_THAT(refusal(R"(, "truncate": false)", ""), HasSubstr("'truncate' of full_attention"));
}

}  // namespace
}  // namespace attend::formats
