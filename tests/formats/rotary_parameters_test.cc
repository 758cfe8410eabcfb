// Guards that each key of rope_scaling and rope_parameters is applied, or known to change nothing, or refuses the
// layer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
