// Guards what becomes of weights and a configuration: a complete layer that owns what it needs, or a sentence.
#include "server/layers/layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "core/base/error.h"
#include "core/layer/compute_attend.h"
#include "server/layers/layer_config.h"
#include "server/layers/layer_weights.h"
#include "tests/support/checkpoint_builder.h"

namespace attend::server {
using formats::Checkpoint;
namespace {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::RandomMatrix;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 4 query heads over 2 key heads, all of 6 elements, embeddings of 5.
CheckpointBuilder Weights(const std::string& dtype = "F32") {
  std::mt19937 random(1);
  CheckpointBuilder builder;
  builder.Add("q_proj.weight", RandomMatrix(24, 5, random), dtype);
  builder.AddVector("q_proj.bias", RandomMatrix(24, 1, random));
  builder.Add("k_proj.weight", RandomMatrix(12, 5, random), dtype);
  builder.Add("v_proj.weight", RandomMatrix(12, 5, random), dtype);
  builder.Add("o_proj.weight", RandomMatrix(7, 24, random), dtype);
  builder.AddVector("q_norm.weight", RandomMatrix(6, 1, random), "BF16");
  builder.AddVector("k_norm.weight", RandomMatrix(12, 1, random));
  return builder;
}

v1::LayerConfig Config() {
  v1::LayerConfig config;
  config.set_num_heads(4);
  config.set_num_kv_heads(2);
  return config;
}

absl::StatusOr<std::shared_ptr<const Layer>> Create(const CheckpointBuilder& builder, const v1::LayerConfig& config) {
  const absl::StatusOr<LayerWeights> weights = FindLayer(builder.Checkpoint(), "", config);
  if (!weights.ok()) return weights.status();
  return Layer::Create(*weights, config, {.name = "a/b", .origin = "upload", .sha256 = "5", .etag = "e"},
                       BestInstructionSet());
}

std::vector<float> Compute(const LayerView& layer, const AttentionOptions& options) {
  std::mt19937 random(2);
  const attend::testing::Matrix tokens = RandomMatrix(3, 5, random);
  AttendProblem::Spec spec;
  spec.embeddings = {.data = tokens.numbers.data(), .batch = 1, .length = 3, .dim = 5};
  spec.layer = layer;
  spec.options = options;
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(spec);
  EXPECT_TRUE(problem.ok()) << problem.status();
  if (!problem.ok()) return {};
  std::vector<float> output(static_cast<std::size_t>(3 * problem->output_dim()));
  EXPECT_TRUE(ComputeAttend(*problem, {.output = output.data()}, {}).ok());
  return output;
}

TEST(Layer, ComputesTheSameBitsAsItsWeightsAfterTheyAreGone) {
  for (const std::string dtype : {"F32", "F16", "BF16"}) {
    v1::LayerConfig config = Config();
    config.mutable_rotary_embedding()->set_base(100);
    config.set_norm_adds_one(true);
    config.mutable_options()->set_causal(v1::CAUSAL_MODE_BOTTOM_RIGHT);
    const auto layer = Create(Weights(dtype), config);  // The checkpoint is gone.
    ASSERT_TRUE(layer.ok()) << layer.status();
    EXPECT_EQ((*layer)->view().query.weight, nullptr);

    const Checkpoint checkpoint = Weights(dtype).Checkpoint();
    const LayerWeights weights = *FindLayer(checkpoint, "", config);
    LayerView view{.query = weights.query,
                   .key = weights.key,
                   .value = weights.value,
                   .output = weights.output,
                   .num_heads = 4,
                   .num_kv_heads = 2,
                   .query_norm = weights.query_norm,
                   .key_norm = weights.key_norm};
    view.query_norm.adds_one = view.key_norm.adds_one = true;
    const double frequencies[] = {1, std::pow(100, -2.0 / 6), std::pow(100, -4.0 / 6)};
    view.rotary.frequencies = frequencies;
    AttentionOptions options;
    options.causal = CausalMode::kBottomRight;
    const std::vector<float> expected = Compute(view, options);
    EXPECT_EQ(Compute((*layer)->view(), (*layer)->options()), expected) << dtype;
    EXPECT_NE(Compute(view, {}), expected) << "the options change nothing, so they are not tested";
  }
}

TEST(Layer, DescribesItself) {
  v1::LayerConfig config = Config();
  config.mutable_rotary_embedding()->set_dim(4);
  v1::Tensor& slopes = *config.mutable_options()->mutable_alibi_slopes();
  slopes.add_shape(4);
  for (const float slope : {0.5F, 0.25F, 0.125F, 0.0625F}) slopes.add_values(slope);
  const auto layer = Create(Weights("F16"), config);
  ASSERT_TRUE(layer.ok()) << layer.status();
  const v1::Layer& description = (*layer)->description();
  EXPECT_EQ(description.name(), "a/b");
  EXPECT_EQ(description.etag(), "e");
  EXPECT_EQ(description.origin(), "upload");
  EXPECT_EQ(description.sha256(), "5");
  EXPECT_EQ(description.naming(), "llama");
  EXPECT_EQ(description.embed_dim(), 5);
  EXPECT_EQ(description.context_dim(), 5);
  EXPECT_EQ(description.head_dim(), 6);
  EXPECT_EQ(description.value_dim(), 6);
  EXPECT_EQ(description.output_dim(), 7);
  EXPECT_TRUE(description.has_output_projection());
  EXPECT_TRUE(description.has_bias());
  EXPECT_TRUE(description.has_query_norm());
  EXPECT_TRUE(description.has_key_norm());
  EXPECT_TRUE(description.has_alibi_slopes());
  EXPECT_FALSE(description.has_sinks());
  EXPECT_THAT(description.weight_types(), ElementsAre(v1::DATA_TYPE_FLOAT16, v1::DATA_TYPE_FLOAT32));
  EXPECT_EQ(description.weight_bytes(), 2 * (24 * 5 + 12 * 5 + 12 * 5 + 7 * 24) + 4 * 24);
  EXPECT_GE(description.memory_bytes(), 2 * (24 * 5 + 12 * 5 + 12 * 5 + 7 * 24) + 4 * (24 + 6 + 12));
  EXPECT_EQ(description.config().num_kv_heads(), 2);
  EXPECT_EQ(description.config().norm_kind(), v1::NORM_KIND_RMS);
  EXPECT_EQ(description.config().norm_epsilon(), 1e-6);
  EXPECT_EQ(description.config().rotary_embedding().base(), 10000);
  EXPECT_EQ(description.config().rotary_embedding().dim(), 4);
  EXPECT_EQ(description.config().rotary_embedding().form(), v1::ROTARY_FORM_HALF);
  EXPECT_EQ(description.config().options().scale(), 1 / std::sqrt(6.0));
  EXPECT_FALSE(description.config().options().has_alibi_slopes());
  const PerHeadView read = (*layer)->options().alibi_slopes;
  ASSERT_EQ(read.size(), 4u);
  for (int h = 0; h < 4; ++h) EXPECT_EQ(read[h], std::ldexp(0.5, -h)) << h;
}

TEST(Layer, OfDoublesKeepsItsWeightsAsTheyAre) {
  CheckpointBuilder builder;
  std::mt19937 random(3);
  const attend::testing::Matrix query = RandomMatrix(4, 5, random);
  builder.Add("query.weight", query, "F64").Add("key.weight", query, "F64").Add("value.weight", query, "F64");
  const auto layer = Create(builder, {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_EQ((*layer)->view().query.packed, nullptr);
  EXPECT_EQ(static_cast<const double*>((*layer)->view().value.weight)[7], query.numbers[7]);
  EXPECT_EQ((*layer)->description().memory_bytes(), 3 * 8 * 20);
  builder.AddVector("query.bias", RandomMatrix(4, 1, random), "F32");
  EXPECT_THAT(std::string(Create(builder, {}).status().message()), HasSubstr("FLOAT64 does not mix"));
}

TEST(Layer, RotaryFrequenciesAreScaled) {
  v1::LayerConfig config = Config();
  v1::RotaryEmbedding& rotary = *config.mutable_rotary_embedding();
  rotary.set_base(10000);
  rotary.set_linear_factor(4);
  const auto linear = *Create(Weights(), config);
  EXPECT_THAT(linear->view().rotary.frequencies,
              ElementsAre(0.25, std::pow(10000, -2.0 / 6) / 4, std::pow(10000, -4.0 / 6) / 4));
  rotary.clear_linear_factor();
  v1::Llama3Scaling& llama3 = *rotary.mutable_llama3();
  llama3.set_factor(8);
  llama3.set_low_freq_factor(1);
  llama3.set_high_freq_factor(4);
  llama3.set_original_context_length(400);
  // Wavelengths 6.28 < 400 / 4, 135 between 100 and 400, 2916 > 400.
  const double middle = std::pow(10000, -2.0 / 6);
  const double smooth = (400 / (2 * M_PI / middle) - 1) / 3;
  const auto layer = *Create(Weights(), config);
  const RotaryView& scaled = layer->view().rotary;
  EXPECT_EQ(scaled.frequencies[0], 1);
  EXPECT_NEAR(scaled.frequencies[1], (1 - smooth) * middle / 8 + smooth * middle, 1e-15);
  EXPECT_NEAR(scaled.frequencies[2], std::pow(10000, -4.0 / 6) / 8, 1e-15);
  EXPECT_FALSE(scaled.interleaved);
}

TEST(Layer, RotaryFrequenciesMayDependOnTheLengthOfAText) {
  v1::LayerConfig config = Config();
  v1::RotaryEmbedding& rotary = *config.mutable_rotary_embedding();
  for (const double frequency : {1.0, 0.5, 0.25}) rotary.add_frequencies(frequency);
  for (const double frequency : {0.125, 0.0625, 0.03125}) rotary.add_long_frequencies(frequency);
  rotary.set_original_context_length(8);
  rotary.set_attention_factor(1.5);
  const auto given = *Create(Weights(), config);
  EXPECT_THAT(given->view().rotary.frequencies, ElementsAre(1, 0.5, 0.25));
  EXPECT_EQ(given->view().rotary.factor, 1.5);
  EXPECT_EQ(given->short_context_length(), 8);
  EXPECT_EQ(given->FrequenciesFor(8), nullptr);
  ASSERT_NE(given->FrequenciesFor(9), nullptr);
  EXPECT_THAT(*given->FrequenciesFor(9), ElementsAre(0.125, 0.0625, 0.03125));

  rotary.Clear();
  rotary.set_base(100);
  rotary.set_dynamic_factor(2);
  rotary.set_original_context_length(8);
  const auto dynamic = *Create(Weights(), config);
  EXPECT_EQ(dynamic->view().rotary.frequencies[1], std::pow(100, -2.0 / 6));
  EXPECT_EQ(dynamic->FrequenciesFor(8), nullptr);
  // 100 * (2 * 12 / 8 - 1)^(6 / 4)
  const double base = 100 * std::pow(2, 1.5);
  EXPECT_NEAR((*dynamic->FrequenciesFor(12))[1], std::pow(base, -2.0 / 6), 1e-15);
  EXPECT_NEAR((*dynamic->FrequenciesFor(12))[2], std::pow(base, -4.0 / 6), 1e-15);
}

// As in a request: 0.1 is 0.10009765625 in BFLOAT16 and 0.0999755859375 in FLOAT16.
TEST(Layer, NumbersOfHeadsAreRoundedToTheTypeOfTheirTensor) {
  const auto read = [](v1::DataType type, bool of_sinks) {
    v1::LayerConfig config = Config();
    v1::AttentionOptions& options = *config.mutable_options();
    v1::Tensor& tensor = of_sinks ? *options.mutable_sinks() : *options.mutable_alibi_slopes();
    tensor.set_data_type(type);
    tensor.add_shape(4);
    for (const float value : {0.1F, 0.5F, -0.1F, 0.0F}) tensor.add_values(value);
    const auto layer = *Create(Weights(), config);
    const PerHeadView view = of_sinks ? layer->options().sinks : layer->options().alibi_slopes;
    return std::vector<double>{view[0], view[1], view[2], view[3]};
  };
  for (const bool of_sinks : {false, true}) {
    EXPECT_THAT(read(v1::DATA_TYPE_BFLOAT16, of_sinks), ElementsAre(0.10009765625, 0.5, -0.10009765625, 0));
    EXPECT_THAT(read(v1::DATA_TYPE_FLOAT16, of_sinks), ElementsAre(0.0999755859375, 0.5, -0.0999755859375, 0));
    EXPECT_THAT(read(v1::DATA_TYPE_FLOAT32, of_sinks), ElementsAre(0.1F, 0.5, -0.1F, 0));
    EXPECT_THAT(read(v1::DATA_TYPE_UNSPECIFIED, of_sinks), ElementsAre(0.1F, 0.5, -0.1F, 0));
  }
}

// Stored layers may have it; new ones are refused before (layer_store_test).
TEST(Layer, ALengthThatNothingDependsOnIsNoReasonToRefuseAStoredLayer) {
  v1::LayerConfig config = Config();
  config.mutable_rotary_embedding()->set_original_context_length(-5);
  const auto layer = Create(Weights(), config);
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_EQ((*layer)->FrequenciesFor(9), nullptr);
  EXPECT_TRUE(CheckRotaryHasEffect((*layer)->description().config()).ok()) << "what it shows may be given again";
}

TEST(Layer, ThatThereIsNoRotaryEmbeddingCanBeSaid) {
  v1::LayerConfig config = Config();
  config.mutable_rotary_embedding()->set_form(v1::ROTARY_FORM_NONE);
  config.mutable_options()->set_causal(v1::CAUSAL_MODE_NONE);
  const auto layer = *Create(Weights(), config);
  EXPECT_TRUE(layer->view().rotary.frequencies.empty());
  EXPECT_EQ(layer->options().causal, CausalMode::kNone);
  EXPECT_EQ(layer->description().config().rotary_embedding().form(), v1::ROTARY_FORM_NONE);
  for (const std::string& note : layer->description().notes()) EXPECT_THAT(note, ::testing::Not(HasSubstr("causal")));
}

TEST(Layer, MistakesNameTheirField) {
  const struct {
    const char* field;
    const char* message;
    std::function<void(v1::LayerConfig&)> spoil;
  } cases[] = {
      {"config.num_heads", "between 1 and 1024", [](auto& c) { c.set_num_heads(-1); }},
      {"config.num_heads", "between 1 and 1024", [](auto& c) { c.set_num_heads(1025); }},
      {"config.num_kv_heads", "divide config.num_heads", [](auto& c) { c.set_num_kv_heads(3); }},
      {"config.num_heads", "is 5; it must divide the 24 rows of the layer's query weight",
       [](auto& c) {
         c.set_num_heads(5);
         c.set_num_kv_heads(5);
       }},
      {"config.num_kv_heads", "gives each key head the size 3, but 4 query heads (config.num_heads) have the size 6",
       [](auto& c) { c.set_num_kv_heads(4); }},
      {"config.num_kv_heads", "is 8; it must divide the 12 rows of the layer's key weight",
       [](auto& c) {
         c.set_num_heads(8);
         c.set_num_kv_heads(8);
       }},
      {"config.rotary_embedding.dim", "is 5; it must be even",
       [](auto& c) { c.mutable_rotary_embedding()->set_dim(5); }},
      {"config.rotary_embedding.dim", "is 8", [](auto& c) { c.mutable_rotary_embedding()->set_dim(8); }},
      {"config.rotary_embedding.dim", "is -2", [](auto& c) { c.mutable_rotary_embedding()->set_dim(-2); }},
      {"config.rotary_embedding.base", "at least 1", [](auto& c) { c.mutable_rotary_embedding()->set_base(0.5); }},
      {"config.rotary_embedding.base", "at least 1", [](auto& c) { c.mutable_rotary_embedding()->set_base(NAN); }},
      {"config.rotary_embedding.linear_factor", "positive",
       [](auto& c) { c.mutable_rotary_embedding()->set_linear_factor(0); }},
      {"config.rotary_embedding.linear_factor", "positive",
       [](auto& c) { c.mutable_rotary_embedding()->set_linear_factor(INFINITY); }},
      {"config.rotary_embedding.llama3.factor", "at least 1",
       [](auto& c) { c.mutable_rotary_embedding()->mutable_llama3(); }},
      {"config.rotary_embedding.frequencies", "has 1 numbers; it must have 3",
       [](auto& c) { c.mutable_rotary_embedding()->add_frequencies(1); }},
      {"config.rotary_embedding.frequencies[2]", "must be finite",
       [](auto& c) {
         for (const double f : {1.0, 2.0, std::nan("")}) c.mutable_rotary_embedding()->add_frequencies(f);
       }},
      {"config.rotary_embedding.frequencies", "goes without base",
       [](auto& c) {
         for (int i = 0; i < 3; ++i) c.mutable_rotary_embedding()->add_frequencies(1);
         c.mutable_rotary_embedding()->set_base(5);
       }},
      {"config.rotary_embedding.long_frequencies", "goes with frequencies",
       [](auto& c) {
         for (int i = 0; i < 3; ++i) c.mutable_rotary_embedding()->add_long_frequencies(1);
         c.mutable_rotary_embedding()->set_original_context_length(5);
       }},
      {"config.rotary_embedding.original_context_length", "must be at least 1",
       [](auto& c) { c.mutable_rotary_embedding()->set_dynamic_factor(2); }},
      {"config.rotary_embedding.dynamic_factor", "at least 1",
       [](auto& c) { c.mutable_rotary_embedding()->set_dynamic_factor(0.5); }},
      {"config.rotary_embedding.dynamic_factor", "leave float64's range",
       [](auto& c) {
         c.mutable_rotary_embedding()->set_dynamic_factor(1e300);
         c.mutable_rotary_embedding()->set_original_context_length(4);
       }},
      {"config.rotary_embedding.dynamic_factor", "goes without linear_factor",
       [](auto& c) {
         c.mutable_rotary_embedding()->set_dynamic_factor(2);
         c.mutable_rotary_embedding()->set_linear_factor(2);
       }},
      {"config.rotary_embedding.attention_factor", "positive",
       [](auto& c) { c.mutable_rotary_embedding()->set_attention_factor(0); }},
      {"config.rotary_embedding.linear_factor", "goes without llama3",
       [](auto& c) {
         c.mutable_rotary_embedding()->set_linear_factor(1);
         c.mutable_rotary_embedding()->mutable_llama3()->set_factor(2);
       }},
      {"config.norm_epsilon", "at least 0", [](auto& c) { c.set_norm_epsilon(-1); }},
      {"config.norm_epsilon", "finite", [](auto& c) { c.set_norm_epsilon(NAN); }},
      {"config.norm_epsilon", "beyond the largest float32", [](auto& c) { c.set_norm_epsilon(1e39); }},
      {"config.rotary_embedding.linear_factor", "at least 2^-64",
       [](auto& c) { c.mutable_rotary_embedding()->set_linear_factor(1e-30); }},
      {"config.norm_kind", "NORM_KIND_RMS", [](auto& c) { c.set_norm_kind(static_cast<v1::NormKind>(9)); }},
      {"config.options.mask", "a request's, not a layer's", [](auto& c) { c.mutable_options()->mutable_mask(); }},
      {"config.options.bias", "a request's", [](auto& c) { c.mutable_options()->mutable_bias(); }},
      {"config.options.top_k", "a request's", [](auto& c) { c.mutable_options()->set_top_k(1); }},
      {"config.options.valid_lengths", "a request's", [](auto& c) { c.mutable_options()->add_valid_lengths(1); }},
      {"config.options.softcap", "", [](auto& c) { c.mutable_options()->set_softcap(-1); }},
      {"config.options.scale", "", [](auto& c) { c.mutable_options()->set_scale(NAN); }},
      {"config.options.sliding_window_left", "", [](auto& c) { c.mutable_options()->set_sliding_window_left(-1); }},
      {"config.options.sinks.shape", "must be [4]",
       [](auto& c) { c.mutable_options()->mutable_sinks()->add_shape(3); }},
      {"config.options.sinks", "needs 4 `values`", [](auto& c) { c.mutable_options()->mutable_sinks()->add_shape(4); }},
      {"config.options.sinks.data_type", "FLOAT32",
       [](auto& c) {
         c.mutable_options()->mutable_sinks()->add_shape(4);
         c.mutable_options()->mutable_sinks()->set_data_type(v1::DATA_TYPE_FLOAT64);
       }},
      {"config.options.precision", "known Precision",
       [](auto& c) { c.mutable_options()->set_precision(static_cast<v1::Precision>(7)); }},
      {"config.options.key_mask", "a request's", [](auto& c) { c.mutable_options()->mutable_key_mask(); }},
      {"config.options.causal", "known CausalMode",
       [](auto& c) { c.mutable_options()->set_causal(static_cast<v1::CausalMode>(7)); }},
  };
  for (const auto& test : cases) {
    v1::LayerConfig config = Config();
    test.spoil(config);
    const LayerWeights weights = *FindLayer(Weights().Checkpoint(), "", Config());
    const absl::Status status = Layer::Create(weights, config, {}, BestInstructionSet()).status();
    EXPECT_EQ(GetErrorDetails(status).field, test.field) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

TEST(Layer, NormsMustFitAHeadOrAll) {
  LayerWeights weights = *FindLayer(Weights().Checkpoint(), "", Config());
  weights.query_norm.size = 5;
  EXPECT_THAT(std::string(Layer::Create(weights, Config(), {}, BestInstructionSet()).status().message()),
              HasSubstr("query_norm has 5 elements; it must have 6, the size of a head, or 24"));
}

TEST(Layer, TheCallersConfigurationGoesBeforeTheWeights) {
  LayerWeights weights = *FindLayer(Weights().Checkpoint(), "", Config());
  weights.config = Config();
  weights.config.mutable_options()->set_softcap(5);
  weights.config.mutable_options()->set_scale(2);
  weights.config.mutable_rotary_embedding()->set_dim(2);
  weights.config.mutable_rotary_embedding()->set_linear_factor(2);
  v1::LayerConfig caller;
  caller.mutable_options()->set_softcap(6);
  caller.mutable_rotary_embedding()->set_base(50);
  const auto layer = Layer::Create(weights, caller, {}, BestInstructionSet());
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_EQ((*layer)->options().softcap, 6);
  EXPECT_EQ((*layer)->options().scale, 2);
  EXPECT_EQ((*layer)->description().config().rotary_embedding().dim(), 6) << "one rotary embedding, not parts of two";
  EXPECT_EQ((*layer)->view().rotary.frequencies[0], 1);
}

}  // namespace
}  // namespace attend::server
