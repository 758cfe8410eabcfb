// Guards which checkpoints are refused, and that the refusal names the tensor, the field or the key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>

#include "formats/layers/naming_table.h"
#include "tests/formats/random_layer.h"
#include "tests/support/status_message.h"

namespace attend::formats {
namespace {

using ::attend::testing::Message;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

TEST(LayerRefusals, WhatCannotBeComputedIsSaidBeforeNamesAreLookedFor) {
  for (const char* const type : {"deberta-v2", "qwen3_next", "qwen2_5_vl_vision"}) {
    const std::string config = R"({"model_type": ")" + std::string(type) + R"("})";
    EXPECT_THAT(Message(FindLayer(CheckpointBuilder().Checkpoint(), "a.", HeadsOf(1), config).status()),
                AllOf(HasSubstr(type), HasSubstr("cannot be computed"), HasSubstr("not supported")));
  }
}

TEST(LayerRefusals, NumbersOfHeadsInAConfigAreCheckedToo) {
  const Layer layer(2, 2);
  const auto status = [&](const std::string& names, const std::string& keys) {
    const std::string config = R"({"model_type": "llama")" + keys + "}";
    const Checkpoint checkpoint =
        (names == "llama" ? Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone)
                          : Separate(layer, "query", "key", "value", "output", Biases::kNone))
            .Checkpoint();
    return FindLayer(checkpoint, "", {}, config).status();
  };
  EXPECT_TRUE(status("llama", R"(, "num_attention_heads": 2)").ok());
  EXPECT_EQ(FieldOf(status("llama", R"(, "num_attention_heads": 2, "num_key_value_heads": 0)")), "config.num_kv_heads");
  EXPECT_EQ(FieldOf(status("llama", R"(, "num_attention_heads": 0)")), "config.num_heads");
  // A model's default is not one head, whatever its weights are called.
  EXPECT_EQ(FieldOf(status("notebook", R"(, "num_attention_heads": null)")), "config.num_heads");
  EXPECT_TRUE(status("notebook", R"(, "num_attention_heads": 2)").ok());
}

TEST(LayerRefusals, ANormThatIsNotUsedIsAnError) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  builder.AddVector("q_layernorm.norms.0.weight", layer.query_norm);
  EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", layer.Config()).status()),
              HasSubstr("the tensor 'q_layernorm.norms.0.weight', which may change what it computes"));
}

TEST(LayerRefusals, WhenNoneFitsTheErrorSaysWhatThereIsAndWhatWasLookedFor) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "m.0.self_attn.q_proj", "m.0.self_attn.k_proj", "m.0.self_attn.v_proj",
                                       "m.0.self_attn.o_proj", Biases::kAll);
  for (int i = 0; i < 20; ++i) builder.Add("x." + std::to_string(i), layer.query);
  builder.Add("m.1.self_attn.q_proj.weight", layer.query).Add("m.1.self_attn.k_proj.weight", layer.key);
  const Checkpoint checkpoint = builder.Checkpoint();
  EXPECT_THAT(Message(FindLayer(checkpoint, "m.2").status()),
              AllOf(HasSubstr("no attention layer was found with the prefix 'm.2.'"),
                    HasSubstr("the file has layers with the prefixes 'm.0.'"), HasSubstr("no tensor has this prefix")));
  for (const Naming& naming : Namings()) {
    EXPECT_THAT(Message(FindLayer(checkpoint, "m.2").status()), HasSubstr(std::string(naming.name)));
  }
  EXPECT_THAT(Message(FindLayer(checkpoint, "m.1").status()),
              AllOf(HasSubstr("for the naming llama it lacks m.1.self_attn.v_proj.weight"),
                    HasSubstr("there is m.1.self_attn.k_proj.weight, m.1.self_attn.q_proj.weight")));
  EXPECT_THAT(Message(FindLayer(checkpoint, "x").status()), HasSubstr("x.0, x.1, x.10, x.11, x.12, x.13 and 14 more"));
  EXPECT_THAT(Message(FindLayer(checkpoint, "").status()), HasSubstr("no attention layer was found;"));
  const Checkpoint none = CheckpointBuilder().Checkpoint();
  EXPECT_THAT(Message(FindLayer(none, "").status()), HasSubstr("no tensor"));
}

TEST(LayerRefusals, LongNamesAreCut) {
  const Layer layer(1, 1);
  CheckpointBuilder builder;
  builder.Add(std::string(5000, 'n'), layer.query);
  EXPECT_LT(FindLayer(builder.Checkpoint(), "").status().message().size(), 2000U);
}

TEST(LayerRefusals, TwoLayersAtOnePrefixAreAnError) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  builder.Add("query.weight", layer.query).Add("key.weight", layer.key).Add("value.weight", layer.value);
  EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "").status()),
              AllOf(HasSubstr("query.weight (notebook)"), HasSubstr("q_proj.weight (llama)")));
}

// Doubles that float32 does not hold: by a digit, by its range, and below its smallest number.
TEST(LayerRefusals, NormsAndSinksThatFloat32RoundsAreRefused) {
  const Layer layer(2, 2);
  for (const char* const name :
       {"q_layernorm.weight", "q_layernorm.bias", "k_layernorm.weight", "k_layernorm.bias", "sinks"}) {
    const auto with = [&](double number) {
      CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "dense", Biases::kNone, "F64");
      for (const char* const norm : {"q_layernorm.weight", "k_layernorm.weight"}) {
        if (std::string(norm) != name) builder.AddVector(norm, layer.query_norm, "F64");
      }
      std::vector<double> numbers(std::string(name) == "sinks" ? 2 : kHeadDim, 0.5);
      numbers[1] = number;
      builder.Add(name, {static_cast<std::int64_t>(numbers.size())},
                  {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double)}, "F64");
      return Message(FindLayer(builder.Checkpoint(), "", layer.Config()).status());
    };
    for (const double number : {0.1, 1e300, -1e300, 1e-300, 1 + 1e-12}) {
      EXPECT_THAT(with(number), AllOf(HasSubstr("tensor '" + std::string(name) + "' has the type F64"),
                                      HasSubstr("does not hold its number 1 exactly")))
          << number;
    }
    for (const double number : {0.25, -0.0, double{0.1F}, std::ldexp(1.0, -149), -double{INFINITY}}) {
      EXPECT_EQ(with(number), "") << number;
    }
  }
}

TEST(LayerRefusals, FrequenciesOfARotaryEmbeddingThatNobodyDescribesAreRefused) {
  const Layer layer(2, 2);
  for (const std::string around : {"model.layers.0.self_attn.", "model.layers.0.", "model.", ""}) {
    CheckpointBuilder builder =
        Separate(layer, "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                 "model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.o_proj", Biases::kNone);
    builder.Add(around + "rotary_emb.inv_freq", {1}, "abcd", "F32");
    const auto status = [&](const CallerSettings& caller, const std::optional<std::string>& config = {}) {
      return FindLayer(builder.Checkpoint(), "model.layers.0.self_attn", caller, config).status();
    };
    EXPECT_THAT(Message(status(layer.Config())), HasSubstr("the tensor '" + around + "rotary_emb.inv_freq' says that"));
    EXPECT_EQ(FieldOf(status(layer.Config())), "config.rotary_embedding");
    CallerSettings caller = layer.Config();
    caller.rotary = true;
    EXPECT_EQ(Message(status(caller)), "");
    EXPECT_EQ(Message(status(layer.Config(), R"({"model_type": "llama"})")), "");
  }
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  builder.Add("rotary_emb.inv_freq", {1}, "abcd", "F32");
  CallerSettings caller = layer.Config();
  caller.ignored_tensors = {"rotary_emb.inv_freq"};
  EXPECT_EQ(Message(FindLayer(builder.Checkpoint(), "", caller).status()), "");  // On purpose.
}

TEST(LayerRefusals, TensorsThatCannotBeUsedAreNamed) {
  const Layer layer(2, 2);
  const auto with = [&](const std::function<void(CheckpointBuilder&)>& add_query) {
    CheckpointBuilder builder;
    add_query(builder);
    builder.Add("key.weight", layer.key).Add("value.weight", layer.value);
    return Message(FindLayer(builder.Checkpoint(), "").status());
  };
  EXPECT_THAT(with([](auto& b) {
                b.Add("query.weight", {2, 2}, "abcd", "F8_E4M3");
              }),
              HasSubstr("'query.weight' has the type F8_E4M3; weights must be F32, F16, BF16 or F64"));
  EXPECT_THAT(with([](auto& b) { b.Add("query.weight", {2, 2}, std::string(32, 'a'), "I64"); }), HasSubstr("type I64"));
  EXPECT_THAT(with([](auto& b) { b.Add("query.weight", {4}, std::string(16, 'a'), "F32"); }),
              HasSubstr("'query.weight' has the shape [4]; [out_features, in_features] is expected"));
  EXPECT_THAT(with([](auto& b) { b.Add("query.weight", {0, 4}, "", "F32"); }), HasSubstr("shape [0, 4]"));
  EXPECT_THAT(with([&](auto& b) { b.Add("query.weight", layer.query).Add("query.bias", {2}, "abcdefgh", "F32"); }),
              HasSubstr("'query.bias' has the shape [2]; [6], as the projection has outputs, is expected"));
  EXPECT_THAT(with([&](auto& b) { b.Add("query.weight", layer.query).Add("query.bias", {6}, "abcdef", "U8"); }),
              HasSubstr("'query.bias' has the type U8"));
}

TEST(LayerRefusals, HeadsAreCheckedBeforeAnythingIsCut) {
  const Layer layer(2, 2);
  CheckpointBuilder builder;
  builder.Add("qkv_proj.weight", FuseRows(layer, layer.query, layer.key, layer.value))
      .Add("o_proj.weight", layer.output);
  const struct {
    int heads;
    int kv_heads;
    const char* field;
  } cases[] = {{-1, 0, "config.num_heads is -1"},
               {1025, 0, "config.num_heads is 1025"},
               {2, 3, "config.num_kv_heads is 3"},
               {4, 3, "config.num_kv_heads is 3"},
               {2, -1, "config.num_kv_heads is -1"}};
  for (const auto& test : cases) {
    EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", HeadsOf(test.heads, test.kv_heads)).status()),
                HasSubstr(test.field));
  }
}

TEST(LayerRefusals, WhatIsIgnoredMustBeThere) {
  const Layer layer(2, 2);
  CallerSettings caller = layer.Config();
  caller.ignored_tensors = {"sinc"};
  const absl::Status status =
      FindLayer(Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone).Checkpoint(), "", caller)
          .status();
  EXPECT_EQ(FieldOf(status), "config.ignored_tensors");
  EXPECT_THAT(Message(status), HasSubstr("there is no tensor 'sinc'"));
}

TEST(LayerRefusals, RoFormersTableMustBeThatOfARotaryEmbedding) {
  const Layer layer(2, 2);
  const std::string config = R"({"model_type": "roformer", "num_attention_heads": 1})";
  const auto status = [&](double change) {
    CheckpointBuilder builder =
        Separate(layer, "encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.key",
                 "encoder.layer.0.attention.self.value", "encoder.layer.0.attention.output.dense", Biases::kNone);
    Matrix table{40, 6, {}};  // One head of 6.
    for (int i = 0; i < 240; ++i) {
      const int position = i / 6;
      const double angle = position * std::pow(10000, -2.0 * (i % 3) / 6);
      table.numbers.push_back(
          static_cast<float>((i % 6 < 3 ? std::sin(angle) : std::cos(angle)) + (i == 239 ? change : 0)));
    }
    builder.Add("encoder.embed_positions.weight", table);
    return FindLayer(builder.Checkpoint(), "encoder.layer.0.", {}, config).status();
  };
  EXPECT_TRUE(status(0).ok()) << status(0);
  CheckpointBuilder odd = Separate(Layer(1, 1), "attention.self.query", "attention.self.key", "attention.self.value",
                                   "attention.output.dense", Biases::kNone);
  odd.Add("embed_positions.weight", Matrix{2, 1, {0, 0}});
  EXPECT_FALSE(FindLayer(odd.Checkpoint(), "", {}, R"({"model_type": "roformer", "num_attention_heads": 3})").ok());
  EXPECT_THAT(Message(status(0.1)), HasSubstr("'encoder.embed_positions.weight' has other numbers"));
}

TEST(LayerRefusals, NormsThatTheModelDoesNotHaveAreRefused) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  builder.AddVector("q_norm.weight", layer.query_norm).AddVector("k_norm.weight", layer.key_norm);
  const auto refusal = [&](const std::string& config) {
    return Message(FindLayer(builder.Checkpoint(), "", {}, config).status());
  };
  EXPECT_THAT(refusal(R"({"model_type": "llama", "num_attention_heads": 2})"),
              HasSubstr("norms of query and key, which llama models do not have"));
  EXPECT_EQ(refusal(R"({"model_type": "qwen3", "num_attention_heads": 2, "num_key_value_heads": 2})"), "");
  EXPECT_EQ(refusal(R"({"model_type": "internvl_vision", "num_attention_heads": 2, "use_qk_norm": true})"), "");
  const std::string janus = R"({"model_type": "janus_vision_model", "num_attention_heads": 2, "use_qk_norm": )";
  EXPECT_THAT(refusal(janus + "true}"), HasSubstr("'use_qk_norm' is true, and which norms"));
  for (const char* const no : {"false}", "null}"}) {
    EXPECT_THAT(refusal(janus + no), HasSubstr("'use_qk_norm' is false, but the file has norms")) << no;
  }
  CallerSettings caller;
  caller.norms = true;
  EXPECT_EQ(Message(FindLayer(builder.Checkpoint(), "", caller, janus + "true}").status()), "");
  EXPECT_THAT(refusal(R"({"model_type": "glm4_moe", "partial_rotary_factor": 1, "num_attention_heads": 2,
                          "num_key_value_heads": 2})"),
              HasSubstr("'use_qk_norm' is false, but the file has norms of query and key"));
}

TEST(LayerRefusals, ShortNamesThatMayNotBeT5sNeedAScale) {
  const Layer layer(2, 2);
  const auto status = [&](const std::string& module, const CallerSettings& caller) {
    return FindLayer(
               Separate(layer, module + "q", module + "k", module + "v", module + "o", Biases::kNone).Checkpoint(),
               module, caller)
        .status();
  };
  CallerSettings caller = layer.Config();
  EXPECT_TRUE(status("block.0.layer.0.SelfAttention.", caller).ok());
  EXPECT_TRUE(status("EncDecAttention.", caller).ok());
  // Somebody's own module may have been saved alone.
  for (const char* const module : {"blocks.0.self_attn.", ""}) {
    caller.scale = false;
    EXPECT_EQ(FieldOf(status(module, caller)), "config.options.scale") << module;
    EXPECT_THAT(Message(status(module, caller)), HasSubstr("q, k, v and o")) << module;
    caller.scale = true;
    EXPECT_TRUE(status(module, caller).ok()) << module;
  }
}

// The scale that a model's config.json implies does not depend on the names.
TEST(LayerRefusals, AModelsFileSaysTheScaleOfShortNames) {
  const Layer layer(2, 2);
  const auto scale = [&](const std::string& module, const std::string& type) {
    const auto found =
        FindLayer(Separate(layer, module + "q", module + "k", module + "v", module + "o", Biases::kNone).Checkpoint(),
                  module, {}, R"({"model_type": ")" + type + R"(", "num_attention_heads": 2})");
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->settings.scale.value.value_or(0) : -1;
  };
  EXPECT_EQ(scale("", "vit"), 0);
  EXPECT_EQ(scale("SelfAttention.", "vit"), 0);
  EXPECT_EQ(scale("encoder.block.0.layer.0.SelfAttention.", "t5"), 1);
}

TEST(LayerRefusals, WeightsThatMayBeGptNeosNeedAScaleOrItsFile) {
  const Layer layer(2, 2);
  const Checkpoint checkpoint = Separate(layer, "h.0.attn.attention.q_proj", "h.0.attn.attention.k_proj",
                                         "h.0.attn.attention.v_proj", "h.0.attn.attention.out_proj", Biases::kNone)
                                    .Checkpoint();
  for (const char* const prefix : {"h.0.", "h.0.attn.attention."}) {
    CallerSettings caller = layer.Config();
    const absl::Status refused = FindLayer(checkpoint, prefix, caller).status();
    EXPECT_EQ(FieldOf(refused), "config.options.scale");
    EXPECT_THAT(Message(refused), HasSubstr("GPT-Neo's"));
    caller.scale = true;
    EXPECT_TRUE(FindLayer(checkpoint, prefix, caller).ok());
    const auto found = FindLayer(checkpoint, prefix, {}, R"({"model_type": "gpt_neo", "num_heads": 2,
                                                             "attention_types": [[["global"], 1]]})");
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found->settings.scale, 1);
  }
}

// It may be the only copy, and whoever uses it may know its scale.
TEST(LayerRefusals, AStoredLayerWithoutAScaleStaysAsItWas) {
  const Layer layer(2, 2);
  const auto scale = [&](const std::string& module, const std::string& last, bool is_stored) {
    const Checkpoint checkpoint = Separate(layer, module + "q" + last, module + "k" + last, module + "v" + last,
                                           last.empty() ? module + "o" : module + "out" + last, Biases::kNone)
                                      .Checkpoint();
    const auto found = ReadLayer(checkpoint, {.prefix = module, .caller = HeadsOf(2), .is_stored = is_stored});
    if (!found.ok()) return -1.0;
    EXPECT_THAT(found->settings.notes, Contains(HasSubstr("as until now")));
    return double{found->settings.scale.value.value_or(0)};
  };
  EXPECT_EQ(scale("", "", true), 1);
  EXPECT_EQ(scale("", "", false), -1);
  EXPECT_EQ(scale("h.0.attn.attention.", "_proj", true), 0) << "1/sqrt(E)";
  EXPECT_EQ(scale("h.0.attn.attention.", "_proj", false), -1);
}

}  // namespace
}  // namespace attend::formats
