// Guards that no tensor below an attention module is left out in silence, in any naming: one that is planted refuses
// the layer by its name, and each that belongs there makes a difference.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "formats/layers/layer_reader.h"
#include "formats/layers/naming_table.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/status_message.h"

namespace attend::formats {
namespace {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::Matrix;
using ::attend::testing::Message;
using ::attend::testing::RandomMatrix;
using ::attend::testing::Transposed;
using ::testing::HasSubstr;

constexpr std::int64_t kHeads = 4;
constexpr std::int64_t kHeadDim = 3;
constexpr std::int64_t kWidth = kHeads * kHeadDim;
constexpr std::int64_t kEmbedDim = 5;

enum class BiasForm { kNone, kOwn, kSeparate, kFused };

// A layer of one naming: its tensors by their full names. Those of one column are vectors.
struct Case {
  const Naming* naming;
  std::string module;
  std::string prefix;  // What to ask for.
  std::map<std::string, Matrix> tensors;
  std::string what;

  absl::StatusOr<AttentionLayer> Read(const std::vector<std::string>& ignored = {}) const {
    CheckpointBuilder builder;
    for (const auto& [name, matrix] : tensors) {
      matrix.columns == 1 ? builder.AddVector(name, matrix) : builder.Add(name, matrix);
    }
    LayerRequest request{prefix, {}, std::nullopt};
    request.caller.num_heads = request.caller.num_kv_heads = kHeads;
    request.caller.scale = true;
    request.caller.ignored_tensors = ignored;
    if (!naming->model_type.empty()) {
      // What a chatglm model's file must have.
      const std::string more = R"(, "multi_query_attention": true, "multi_query_group_num": 4, "kv_channels": 3)";
      request.config_json = R"({"model_type": ")" + std::string(naming->model_type) + "\"" +
                            (naming->model_type == "chatglm" ? more : "") + "}";
    }
    return ReadLayer(builder.Checkpoint(), request);
  }
};

std::vector<BiasForm> BiasFormsOf(const Naming& naming) {
  std::vector<BiasForm> forms = {BiasForm::kNone, BiasForm::kOwn};
  if (naming.has_separate_biases) forms.push_back(BiasForm::kSeparate);
  if (!naming.fused_bias.empty()) forms.push_back(BiasForm::kFused);
  return forms;
}

void AddBiases(Case& test, BiasForm form, std::mt19937& random) {
  const Naming& naming = *test.naming;
  const auto add = [&](const std::string& name, std::int64_t rows) {
    test.tensors[test.module + name] = RandomMatrix(rows, 1, random);
  };
  if (form == BiasForm::kSeparate) {
    const std::string query(naming.query), beside = query.substr(0, query.rfind('.') + 1);
    for (const char* const name : {"q_bias", "k_bias", "v_bias"}) add(beside + name, kWidth);
  } else if (form == BiasForm::kFused) {
    add(std::string(naming.fused_bias), 3 * kWidth);
  } else if (naming.fusion != Fusion::kNone) {
    add(std::string(naming.query) + std::string(naming.separator) + "bias", 3 * kWidth);
  } else {
    for (const std::string_view name : {naming.query, naming.key, naming.value}) {
      add(std::string(name) + std::string(naming.separator) + "bias", kWidth);
    }
  }
  add(std::string(naming.outputs.front()) + ".bias", kEmbedDim);
}

Case CaseOf(const Naming& naming, std::string_view inner, BiasForm biases, const NormNames* norms) {
  std::mt19937 random(7);
  const std::string layer = "layers.1.";
  Case test{&naming, layer + std::string(inner), layer, {}, {}};
  test.what = std::string(naming.name) + " at '" + std::string(inner) + "', biases " +
              std::to_string(static_cast<int>(biases)) + (norms == nullptr ? "" : ", " + std::string(norms->query));
  const auto add = [&](std::string_view name, std::string_view separator, std::int64_t rows, std::int64_t columns) {
    const Matrix matrix = RandomMatrix(rows, columns, random);
    test.tensors[test.module + std::string(name) + std::string(separator) + "weight"] =
        naming.transposed ? Transposed(matrix) : matrix;
  };
  if (naming.fusion == Fusion::kNone) {
    for (const std::string_view name : {naming.query, naming.key, naming.value}) {
      add(name, naming.separator, kWidth, kEmbedDim);
    }
  } else {
    add(naming.query, naming.separator, 3 * kWidth, kEmbedDim);
  }
  add(naming.outputs.front(), ".", kEmbedDim, kWidth);
  if (biases != BiasForm::kNone) AddBiases(test, biases, random);
  if (norms != nullptr) {
    for (const std::string_view name : {norms->query, norms->key}) {
      for (const char* const part : {".weight", ".bias"}) {
        test.tensors[test.module + std::string(name) + part] = RandomMatrix(kHeadDim, 1, random);
      }
    }
  }
  test.tensors[test.module + "sinks"] = RandomMatrix(kHeads, 1, random);
  return test;
}

// Every naming at each of its modules, with each form of biases and each pair of norms that it may have.
void ForEachCase(const std::function<void(const Case&)>& check) {
  for (const Naming& naming : Namings()) {
    for (const std::string_view inner : naming.modules) {
      for (const BiasForm biases : BiasFormsOf(naming)) {
        check(CaseOf(naming, inner, biases, nullptr));
        for (const NormNames& norms : naming.norms) check(CaseOf(naming, inner, biases, &norms));
      }
    }
  }
}

// All numbers that a layer was read as.
std::string NumbersOf(const AttentionLayer& layer) {
  std::string numbers;
  const auto add = [&numbers](const void* data, WeightType type, std::int64_t count) {
    numbers += data == nullptr ? "none" : "";
    for (std::int64_t i = 0; data != nullptr && i < count; ++i) numbers += std::to_string(FloatAt(data, type, i)) + " ";
    numbers += ";";
  };
  for (const LinearWeights* const linear : {&layer.query, &layer.key, &layer.value, &layer.output}) {
    add(linear->weight, linear->weight_type, linear->out_features * linear->in_features);
    add(linear->bias, linear->bias_type, linear->out_features);
  }
  for (const NormWeights* const norm : {&layer.query_norm, &layer.key_norm}) {
    add(norm->weight, WeightType::kFloat32, norm->size);
    add(norm->bias, WeightType::kFloat32, norm->size);
  }
  const std::vector<float> sinks = layer.settings.sinks.value.value_or(std::vector<float>());
  add(sinks.data(), WeightType::kFloat32, static_cast<std::int64_t>(sinks.size()));
  return numbers;
}

// What real models have there, and what none has; the rest is drawn.
std::vector<std::string> Planted(std::mt19937& random) {
  std::vector<std::string> names = {"gate_proj.weight",
                                    "q_proj.weight_scale",
                                    "q_proj.weight_scale_inv",
                                    "lambda_q1",
                                    "logit_scale",
                                    "norm.weight",
                                    "relative_position_bias_table",
                                    "x",
                                    "q_proj.lora_A.weight",
                                    "bias",
                                    "masked_bias.x",
                                    "self.distance_embedding.weight",
                                    "a.b.c.d",
                                    "rotary_emb.scale",
                                    "zzz"};
  for (int i = 0; i < 8; ++i) {
    std::string name;
    for (unsigned n = 3 + random() % 10; n > 0; --n) name += static_cast<char>('a' + random() % 26);
    names.push_back(name + (random() % 2 == 0 ? ".weight" : ""));
  }
  return names;
}

TEST(NamingProperty, APlantedTensorIsRefusedByItsName) {
  std::mt19937 random(1);
  ForEachCase([&random](const Case& test) {
    const absl::StatusOr<AttentionLayer> whole = test.Read();
    ASSERT_TRUE(whole.ok()) << test.what << ": " << whole.status();
    EXPECT_EQ(whole->naming, test.naming->name);
    for (const std::string& name : Planted(random)) {
      Case planted = test;
      planted.tensors[test.module + name] = RandomMatrix(kHeadDim, 1, random);
      const absl::Status status = planted.Read().status();
      ASSERT_FALSE(status.ok()) << test.what << " leaves out " << name;
      EXPECT_THAT(Message(status), HasSubstr(test.module + name)) << test.what;
      const absl::StatusOr<AttentionLayer> ignoring = planted.Read({name});
      ASSERT_TRUE(ignoring.ok()) << test.what << ": " << ignoring.status();
      EXPECT_EQ(NumbersOf(*ignoring), NumbersOf(*whole)) << test.what << " " << name;
    }
  });
}

TEST(NamingProperty, WhatBelongsToAnotherFormOfBiasesOrNormsIsReadOrRefused) {
  ForEachCase([](const Case& test) {
    for (const char* const name : {"q_bias", "v_bias", "in_proj_bias", "q_norm.weight", "k_layernorm.weight",
                                   "query_layernorm.weight", "q_ln.weight", "norm_k.weight"}) {
      Case more = test;
      if (!more.tensors.emplace(test.module + name, Matrix{1, 1, {1}}).second) continue;
      const absl::StatusOr<AttentionLayer> found = more.Read();
      EXPECT_TRUE(!found.ok() || NumbersOf(*found) != NumbersOf(*test.Read())) << test.what << " leaves out " << name;
    }
  });
}

TEST(NamingProperty, EachTensorThatIsRemovedIsMissed) {
  ForEachCase([](const Case& test) {
    const std::string whole = NumbersOf(*test.Read());
    for (const auto& [name, matrix] : test.tensors) {
      Case less = test;
      less.tensors.erase(name);
      const absl::StatusOr<AttentionLayer> found = less.Read();
      EXPECT_TRUE(!found.ok() || NumbersOf(*found) != whole) << test.what << " does not read " << name;
    }
  });
}

TEST(NamingProperty, EachNumberIsRead) {
  ForEachCase([](const Case& test) {
    const std::string whole = NumbersOf(*test.Read());
    for (const auto& [name, matrix] : test.tensors) {
      for (const std::size_t at : {std::size_t{0}, matrix.numbers.size() / 2, matrix.numbers.size() - 1}) {
        Case other = test;
        other.tensors[name].numbers[at] += 8;
        const absl::StatusOr<AttentionLayer> found = other.Read();
        ASSERT_TRUE(found.ok()) << test.what;
        EXPECT_NE(NumbersOf(*found), whole) << test.what << " does not read element " << at << " of " << name;
      }
    }
  });
}

}  // namespace
}  // namespace attend::formats
