// Guards that every naming is recognised, and that each projection found has exactly the numbers it should.
#include "formats/layers/layer_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "formats/layers/layer_settings.h"
#include "tests/formats/random_layer.h"
#include "tests/support/status_message.h"

namespace attend::formats {
namespace {

using ::attend::testing::Message;
using ::attend::testing::Rows;
using ::attend::testing::Transposed;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<float> Numbers(const void* data, WeightType type, std::int64_t count) {
  std::vector<float> numbers;
  for (std::int64_t i = 0; i < count; ++i) numbers.push_back(FloatAt(data, type, i));
  return numbers;
}

void ExpectLinear(const LinearWeights& actual, const Matrix& weight, const Matrix* bias, const std::string& what) {
  ASSERT_NE(actual.weight, nullptr) << what;
  ASSERT_EQ(actual.out_features, weight.rows) << what;
  ASSERT_EQ(actual.in_features, weight.columns) << what;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(actual.weight) % static_cast<std::uintptr_t>(SizeOf(actual.weight_type)),
            0U)
      << what << " is unaligned";
  EXPECT_EQ(Numbers(actual.weight, actual.weight_type, weight.rows * weight.columns), weight.numbers) << what;
  ASSERT_EQ(actual.bias != nullptr, bias != nullptr) << what;
  if (bias == nullptr) return;
  EXPECT_EQ(Numbers(actual.bias, actual.bias_type, bias->rows), bias->numbers) << what;
}

void ExpectLayer(const absl::StatusOr<AttentionLayer>& found, const Layer& layer, Biases biases,
                 const std::string& what) {
  ASSERT_TRUE(found.ok()) << what << ": " << found.status();
  const bool has_bias = biases != Biases::kNone;
  ExpectLinear(found->query, layer.query, has_bias ? &layer.query_bias : nullptr, what + ": query");
  ExpectLinear(found->key, layer.key, has_bias ? &layer.key_bias : nullptr, what + ": key");
  ExpectLinear(found->value, layer.value, has_bias ? &layer.value_bias : nullptr, what + ": value");
  ExpectLinear(found->output, layer.output, biases == Biases::kAll ? &layer.output_bias : nullptr, what + ": output");
}

TEST(LayerReader, SeparateProjectionsAreFoundAtTheLayerAndAtItsModule) {
  const struct {
    const char* naming;
    const char* module;  // Below the layer's prefix.
    const char* names[4];
  } cases[] = {
      {"notebook", "", {"query", "key", "value", "output"}},
      {"notebook", "", {"query", "key", "value", "out_proj"}},
      {"notebook", "", {"query", "key", "value", "out"}},
      {"bert", "attention.", {"self.query", "self.key", "self.value", "output.dense"}},
      {"vit", "attention.", {"attention.query", "attention.key", "attention.value", "output.dense"}},
      {"distilbert", "attention.", {"q_lin", "k_lin", "v_lin", "out_lin"}},
      {"llama", "self_attn.", {"q_proj", "k_proj", "v_proj", "o_proj"}},
      {"opt", "self_attn.", {"q_proj", "k_proj", "v_proj", "out_proj"}},
      {"opt", "attn.", {"q_proj", "k_proj", "v_proj", "out_proj"}},            // GPT-J
      {"opt", "attn.attention.", {"q_proj", "k_proj", "v_proj", "out_proj"}},  // GPT-Neo
      {"phi", "self_attn.", {"q_proj", "k_proj", "v_proj", "dense"}},
      {"diffusers", "attn.", {"to_q", "to_k", "to_v", "to_out.0"}},
      {"t5", "layer.0.SelfAttention.", {"q", "k", "v", "o"}},
  };
  const Layer layer(4, 2);
  for (const auto& test : cases) {
    const std::string prefix = "model.layers.7.", module = prefix + test.module;
    for (const Biases biases : {Biases::kNone, Biases::kAll, Biases::kAllButOutput}) {
      CheckpointBuilder builder = Separate(layer, module + test.names[0], module + test.names[1],
                                           module + test.names[2], module + test.names[3], biases);
      // What else is in a layer, and in a model. In a layer that is no more than its attention it would be refused.
      if (module != prefix) {
        builder.Add("model.layers.7.mlp.dense.weight", layer.query);
        builder.Add("model.layers.7.output.dense.weight", layer.query);
      }
      if (std::string(test.naming) == "bert") {
        builder.AddVector("model.layers.7.attention.output.LayerNorm.weight", layer.query_norm);
      }
      builder.Add("model.layers.70.self_attn.q_proj.weight", layer.query);
      builder.Add("indices", {1}, std::string(8, 'i'), "I64");
      const Checkpoint checkpoint = builder.Checkpoint();
      for (const std::string& given : {prefix, std::string("model.layers.7"), module}) {
        CallerSettings caller = layer.Config();
        caller.scale = std::string(test.module) == "attn.attention.";
        const absl::StatusOr<AttentionLayer> found = FindLayer(checkpoint, given, caller);
        ExpectLayer(found, layer, biases, std::string(test.naming) + " at " + given);
        if (!found.ok()) continue;
        EXPECT_EQ(found->naming, test.naming);
        EXPECT_EQ(found->settings.scale.value.has_value(), std::string(test.naming) == "t5");
      }
    }
  }
}

TEST(LayerReader, WithoutAPrefixNamesStandAlone) {
  const Layer layer(2, 2);
  ExpectLayer(FindLayer(Separate(layer, "query", "key", "value", "output", Biases::kAll).Checkpoint(), ""), layer,
              Biases::kAll, "notebook");
  CheckpointBuilder builder;
  builder.Add("query.weight", layer.query).Add("key.weight", layer.key).Add("value.weight", layer.value);
  const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(), "");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->output.weight, nullptr);
}

// All matrices of one stacked as a naming has them.
using Fuse = std::function<Matrix(const Layer& layer, const Matrix& query, const Matrix& key, const Matrix& value)>;

Matrix FuseGroups(const Layer& layer, const Matrix& query, const Matrix& key, const Matrix& value) {
  const std::int64_t group = layer.num_heads / layer.num_kv_heads * kHeadDim;
  std::vector<Matrix> parts;
  for (std::int64_t i = 0; i < layer.num_kv_heads; ++i) {
    parts.push_back(Rows(query, i * group, group));
    parts.push_back(Rows(key, i * kHeadDim, kHeadDim));
    parts.push_back(Rows(value, i * kHeadDim, kHeadDim));
  }
  return Stacked(parts);
}

TEST(LayerReader, FusedProjectionsAreCut) {
  const struct {
    const char* naming;
    const char* module;
    const char* fused;
    const char* output;
    Fuse fuse;
    bool transposed;
    const char* separator;
  } cases[] = {
      {"torch-mha", "self_attn.", "in_proj", "out_proj", FuseRows, false, "_"},
      {"gpt2", "attn.", "c_attn", "c_proj", FuseRows, true, "."},
      {"phi3", "self_attn.", "qkv_proj", "o_proj", FuseRows, false, "."},
      {"mpt", "attn.", "Wqkv", "out_proj", FuseRows, false, "."},
      {"modernbert", "attn.", "Wqkv", "Wo", FuseRows, false, "."},
      {"timm", "attn.", "qkv", "proj", FuseRows, false, "."},
      {"gpt-neox", "attention.", "query_key_value", "dense", FuseGroups, false, "."},
      {"gpt-neox", "self_attention.", "query_key_value", "dense", FuseGroups, false, "."},
  };
  for (const auto& test : cases) {
    for (const auto& heads : {std::pair(4, 4), std::pair(4, 2), std::pair(4, 1), std::pair(1, 1)}) {
      const Layer layer(heads.first, heads.second);
      for (const std::string dtype : {"F32", "F64", "F16", "BF16"}) {
        const std::string prefix = "h.0.", module = prefix + test.module;
        const Matrix fused = test.fuse(layer, layer.query, layer.key, layer.value);
        const Matrix fused_bias = test.fuse(layer, layer.query_bias, layer.key_bias, layer.value_bias);
        CheckpointBuilder builder;
        builder.Add(module + test.fused + test.separator + "weight", test.transposed ? Transposed(fused) : fused,
                    dtype);
        builder.AddVector(module + test.fused + test.separator + "bias", fused_bias, dtype);
        builder.Add(module + test.output + ".weight", test.transposed ? Transposed(layer.output) : layer.output, dtype);
        builder.AddVector(module + test.output + ".bias", layer.output_bias, dtype);
        builder.Add(module + "bias", {1, 1, 2, 2}, std::string(4, 'b'), "BOOL");  // GPT-2's mask.
        for (const std::string& given : {prefix, module}) {
          const std::string what = std::string(test.naming) + " " + dtype;
          const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(), given, layer.Config());
          ExpectLayer(found, layer, Biases::kAll, what);
          EXPECT_EQ(found.ok() ? found->naming : "", test.naming);
        }
      }
    }
  }
}

TEST(LayerReader, CodeGensRowsAreInFourths) {
  const Layer layer(4, 4);
  std::vector<Matrix> parts;
  for (int i = 0; i < 4; ++i) {
    for (const Matrix* const matrix : {&layer.query, &layer.value, &layer.key}) {
      parts.push_back(Rows(*matrix, i * kHeadDim, kHeadDim));
    }
  }
  CheckpointBuilder builder;
  builder.Add("attn.qkv_proj.weight", Stacked(parts)).Add("attn.out_proj.weight", layer.output);
  builder.Add("attn.causal_mask", {1, 1, 2, 2}, std::string(4, 'b'), "BOOL");
  ExpectLayer(FindLayer(builder.Checkpoint(), "", layer.Config()), layer, Biases::kNone, "codegen");
  EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", HeadsOf(2)).status()),
              HasSubstr("are not those of 2 query heads"));
}

TEST(LayerReader, GptBigCodeIsToldFromGpt2ByItsConfig) {
  const std::string config = R"({"model_type": "gpt_bigcode", "n_head": 4, "multi_query": )";
  for (const std::int64_t kv_heads : {1, 4}) {
    const Layer layer(4, kv_heads);
    const Fuse fuse = kv_heads == 1 ? Fuse(FuseRows) : Fuse(FuseGroups);
    CheckpointBuilder builder;
    builder.Add("attn.c_attn.weight", fuse(layer, layer.query, layer.key, layer.value));
    builder.AddVector("attn.c_attn.bias", fuse(layer, layer.query_bias, layer.key_bias, layer.value_bias));
    builder.Add("attn.c_proj.weight", layer.output).AddVector("attn.c_proj.bias", layer.output_bias);
    ExpectLayer(FindLayer(builder.Checkpoint(), "", {}, config + (kv_heads == 1 ? "true}" : "false}")), layer,
                Biases::kAll, "gpt-bigcode");
    EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", layer.Config()).status()),
                HasSubstr("Weights of GPT-BigCode are read with its config.json"));
  }
}

TEST(LayerReader, ChatGlmIsToldFromGptNeoXByItsConfig) {
  const Layer layer(4, 2);
  CheckpointBuilder builder;
  builder.Add("self_attention.query_key_value.weight", FuseRows(layer, layer.query, layer.key, layer.value));
  builder.AddVector("self_attention.query_key_value.bias",
                    FuseRows(layer, layer.query_bias, layer.key_bias, layer.value_bias));
  builder.Add("self_attention.dense.weight", layer.output);
  const std::string config = R"({"model_type": "chatglm", "num_attention_heads": 4, "multi_query_group_num": 2,
                                 "kv_channels": 3, "multi_query_attention": )";
  ExpectLayer(FindLayer(builder.Checkpoint(), "", {}, config + "true}"), layer, Biases::kAllButOutput, "chatglm");
  EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", {}, config + "false}").status()),
              HasSubstr("'multi_query_attention' must be true"));
  const absl::StatusOr<AttentionLayer> neox = FindLayer(builder.Checkpoint(), "", layer.Config());
  ASSERT_TRUE(neox.ok()) << neox.status();
  EXPECT_THAT(neox->settings.notes, ::testing::ElementsAre(HasSubstr("rows of query_key_value as GPT-NeoX has them")));
}

TEST(LayerReader, TheNotebookAloneHasOneHeadWhenNobodySaysHowMany) {
  const Layer layer(2, 2);
  EXPECT_TRUE(FindLayer(Separate(layer, "query", "key", "value", "output", Biases::kAll).Checkpoint(), "").ok());
  CheckpointBuilder thirds;
  thirds.Add("in_proj_weight", FuseRows(layer, layer.query, layer.key, layer.value))
      .Add("out_proj.weight", layer.output);
  const CheckpointBuilder others[] = {Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kAll),
                                      Separate(layer, "attention.self.query", "attention.self.key",
                                               "attention.self.value", "attention.output.dense", Biases::kNone),
                                      thirds};
  for (const CheckpointBuilder& other : others) {
    const absl::Status status = FindLayer(other.Checkpoint(), "").status();
    EXPECT_EQ(FieldOf(status), "config.num_heads");
    EXPECT_THAT(Message(status), AllOf(HasSubstr("config.num_heads is not set"), HasSubstr("--layer-config")));
    EXPECT_LT(Message(status).size(), 400U);  // So that it is not cut.
    EXPECT_TRUE(FindLayer(other.Checkpoint(), "", HeadsOf(1)).ok());
    EXPECT_TRUE(FindLayer(other.Checkpoint(), "", {}, R"({"model_type": "vit", "num_attention_heads": 1})").ok());
  }
}

TEST(LayerReader, GroupsAreCutByTheNumberOfHeads) {
  const Layer layer(2, 2);
  CheckpointBuilder groups;
  groups.Add("query_key_value.weight", FuseGroups(layer, layer.query, layer.key, layer.value));
  groups.Add("dense.weight", layer.output);
  EXPECT_THAT(Message(FindLayer(groups.Checkpoint(), "", HeadsOf(5)).status()),
              HasSubstr("has 18 outputs, which are not those of 5 query heads, 5 key heads"));
}

TEST(LayerReader, TheOneBiasHasTheRowsOfAllMatrices) {
  const Layer layer(2, 2);
  CheckpointBuilder builder;
  builder.Add("q_proj_weight", layer.query).Add("k_proj_weight", layer.key).Add("v_proj_weight", layer.value);
  builder.AddVector("in_proj_bias", layer.query_bias).Add("out_proj.weight", layer.output);
  EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", layer.Config()).status()),
              HasSubstr("tensor 'in_proj_bias' has the shape [6]; [18], as the projection has outputs, is expected"));
}

TEST(LayerReader, TorchMhaWithSeparateMatricesHasOneBias) {
  const Layer layer(2, 2);
  CheckpointBuilder builder;
  for (const std::string dtype : {"F64", "F16", "BF16", "F32"}) {
    builder = CheckpointBuilder();
    builder.Add("q_proj_weight", layer.query, dtype).Add("k_proj_weight", layer.key, dtype);
    builder.Add("v_proj_weight", layer.value, dtype).Add("out_proj.weight", layer.output, dtype);
    builder.AddVector("in_proj_bias", Stacked({layer.query_bias, layer.key_bias, layer.value_bias}), dtype);
    builder.AddVector("out_proj.bias", layer.output_bias, dtype);
    const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(1), "", layer.Config());
    ExpectLayer(found, layer, Biases::kAll, "torch-mha " + dtype);
    for (const LinearWeights* const linear : {&found->query, &found->key, &found->value}) {
      EXPECT_EQ(linear->bias_type, linear->weight_type) << dtype;  // Not rounded to another.
    }
  }
  builder.Add("bias_k", {1, 1, 6}, std::string(24, '\0'), "F32");
  EXPECT_THAT(Message(FindLayer(builder.Checkpoint(), "", layer.Config()).status()),
              HasSubstr("the tensor 'bias_k', which may change what it computes and is not supported"));
}

TEST(LayerReader, TypesStayAndUnalignedNumbersAreCopied) {
  const Layer layer(4, 2);
  const std::pair<const char*, WeightType> types[] = {{"F32", WeightType::kFloat32},
                                                      {"F64", WeightType::kFloat64},
                                                      {"F16", WeightType::kFloat16},
                                                      {"BF16", WeightType::kBFloat16}};
  for (const auto& [dtype, type] : types) {
    const CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kAll, dtype);
    for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, std::size_t{6}}) {
      const Checkpoint checkpoint = builder.Checkpoint(offset);
      const absl::StatusOr<AttentionLayer> found = FindLayer(checkpoint, "", layer.Config());
      ExpectLayer(found, layer, Biases::kAll, dtype);
      EXPECT_EQ(found->query.weight_type, type);
      EXPECT_EQ(found->value.bias_type, type);
    }
  }
}

TEST(LayerReader, WhatNeedsNoCopyIsAViewOfTheFile) {
  const Layer layer(4, 2);
  CheckpointBuilder builder;
  builder.Add("qkv_proj.weight", FuseRows(layer, layer.query, layer.key, layer.value))
      .Add("o_proj.weight", layer.output);
  const Checkpoint checkpoint = builder.Checkpoint();
  const absl::StatusOr<AttentionLayer> found = FindLayer(checkpoint, "", layer.Config());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->query.weight, checkpoint.Find("qkv_proj.weight")->data);
  EXPECT_EQ(found->output.weight, checkpoint.Find("o_proj.weight")->data);
}

TEST(LayerReader, WeightsOutliveTheCheckpoint) {
  const Layer layer(2, 1);
  absl::StatusOr<AttentionLayer> found = FindLayer(
      Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kAll, "F16").Checkpoint(), "", layer.Config());
  ExpectLayer(found, layer, Biases::kAll, "after the checkpoint");
}

TEST(LayerReader, NormsAreWidened) {
  const Layer layer(4, 2);
  for (const std::string dtype : {"F32", "BF16", "F64"}) {
    CheckpointBuilder builder = Separate(layer, "a.q_proj", "a.k_proj", "a.v_proj", "a.dense", Biases::kNone);
    builder.AddVector("a.q_layernorm.weight", layer.query_norm, dtype);
    builder.AddVector("a.q_layernorm.bias", layer.key_norm, dtype);
    builder.AddVector("a.k_layernorm.weight", layer.key_norm, dtype);
    const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(3), "a", layer.Config());
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->query_norm.size, kHeadDim);
    EXPECT_EQ(Numbers(found->query_norm.weight, WeightType::kFloat32, kHeadDim), layer.query_norm.numbers);
    EXPECT_EQ(Numbers(found->query_norm.bias, WeightType::kFloat32, kHeadDim), layer.key_norm.numbers);
    EXPECT_EQ(Numbers(found->key_norm.weight, WeightType::kFloat32, kHeadDim), layer.key_norm.numbers);
    EXPECT_EQ(found->key_norm.bias, nullptr);
  }
}

TEST(LayerReader, SinksBesideTheProjectionsAreTheLayers) {
  const Layer layer(2, 1);
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  builder.AddVector("sinks", Rows(layer.query_bias, 0, 2), "BF16");
  const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(), "", layer.Config());
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_TRUE(found->settings.sinks);
  EXPECT_EQ(*found->settings.sinks, Rows(layer.query_bias, 0, 2).numbers);
  EXPECT_EQ(found->settings.sinks.origin, "tensor sinks");
}

TEST(LayerReader, BuffersOfLibrariesAreNoWeights) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "a.q_proj", "a.k_proj", "a.v_proj", "a.out_proj", Biases::kNone);
  builder.Add("a.bias", {1, 1, 2, 2}, std::string(4, 'b'), "BOOL").Add("a.masked_bias", {}, "abcd", "F32");
  builder.Add("a.rotary_emb.inv_freq", {2}, std::string(8, 'f'), "F32").Add("a.causal_mask", {1, 1, 1, 1}, "b", "U8");
  CallerSettings caller = layer.Config();
  caller.rotary = true;
  EXPECT_TRUE(FindLayer(builder.Checkpoint(), "a", caller).ok());
  builder.Add("a.masked_bias2", {}, "abcd", "F32");
  EXPECT_FALSE(FindLayer(builder.Checkpoint(), "a", caller).ok());
}

TEST(LayerReader, InputsAndResultsBesideALayerWithoutAPrefixAreNoWeights) {
  const Layer layer(2, 2);
  for (const std::string prefix : {"", "a."}) {
    CheckpointBuilder builder =
        Separate(layer, prefix + "query", prefix + "key", prefix + "value", prefix + "output", Biases::kAll);
    for (const char* const name : {"x", "query", "output_f64", "attention_weights", "key_value"}) {
      builder.AddVector(prefix + name, layer.query_norm);
    }
    EXPECT_EQ(FindLayer(builder.Checkpoint(), prefix).ok(), prefix.empty());
  }
  CheckpointBuilder builder = Separate(layer, "query", "key", "value", "output", Biases::kAll);
  builder.AddVector("gate", layer.query_norm);
  EXPECT_FALSE(FindLayer(builder.Checkpoint(), "").ok());
}

TEST(LayerReader, SeparateBiasesBelongToTheirRows) {
  const Layer layer(2, 2);
  CheckpointBuilder builder;
  builder.Add("attn.qkv.weight", FuseRows(layer, layer.query, layer.key, layer.value))
      .Add("attn.proj.weight", layer.output);
  builder.AddVector("attn.q_bias", layer.query_bias).AddVector("attn.v_bias", layer.value_bias);
  const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(), "attn", layer.Config());
  ASSERT_TRUE(found.ok()) << found.status();
  ExpectLinear(found->query, layer.query, &layer.query_bias, "query");
  ExpectLinear(found->key, layer.key, nullptr, "key");
  ExpectLinear(found->value, layer.value, &layer.value_bias, "value");
}

// VideoMAE's, which has them one module further in than its output projection.
TEST(LayerReader, SeparateBiasesStandBesideTheQuerysMatrix) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "attention.attention.query", "attention.attention.key",
                                       "attention.attention.value", "attention.output.dense", Biases::kNone);
  builder.AddVector("attention.attention.q_bias", layer.query_bias);
  builder.AddVector("attention.attention.v_bias", layer.value_bias);
  const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(), "", layer.Config());
  ASSERT_TRUE(found.ok()) << found.status();
  ExpectLinear(found->query, layer.query, &layer.query_bias, "query");
  ExpectLinear(found->key, layer.key, nullptr, "key");
  ExpectLinear(found->value, layer.value, &layer.value_bias, "value");
}

TEST(LayerReader, WhatIsAssumedIsSaid) {
  const Layer layer(2, 2);
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  const auto notes = [&](const CallerSettings& caller, const std::optional<std::string>& config) {
    const absl::StatusOr<AttentionLayer> found = FindLayer(builder.Checkpoint(), "", caller, config);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->settings.notes : std::vector<std::string>();
  };
  CallerSettings caller = layer.Config();
  EXPECT_THAT(notes(caller, std::nullopt),
              ::testing::ElementsAre("not causal, no rotary embedding (assumed: nothing says otherwise)"));
  EXPECT_THAT(notes({}, R"({"model_type": "llama", "num_attention_heads": 2})"), ::testing::IsEmpty());
  caller.causal = Causality::kBottomRight;
  EXPECT_THAT(notes(caller, std::nullopt),
              ::testing::ElementsAre("no rotary embedding (assumed: nothing says otherwise)"));
  caller.rotary = true;
  EXPECT_THAT(notes(caller, std::nullopt), ::testing::IsEmpty());
  builder.AddVector("q_norm.weight", layer.query_norm);
  EXPECT_THAT(notes(caller, std::nullopt), ::testing::ElementsAre(HasSubstr("RMS norms with epsilon 1e-06")));
}

}  // namespace
}  // namespace attend::formats