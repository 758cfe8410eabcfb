// Guards what goes before what when several places say how a layer uses its weights.
#include "server/layers/layer_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/status_message.h"

namespace attend::server {
namespace {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::Message;
using ::attend::testing::RandomMatrix;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A layer of 2 heads of 3 in a naming whose scale is 1.
CheckpointBuilder T5() {
  std::mt19937 random(1);
  CheckpointBuilder builder;
  for (const char* const name : {"q", "k", "v"}) {
    builder.Add(std::string("SelfAttention.") + name + ".weight", RandomMatrix(name[0] == 'q' ? 6 : 3, 5, random));
  }
  return builder.Add("SelfAttention.o.weight", RandomMatrix(5, 6, random));
}

TEST(LayerWeights, MetadataGoBeforeTheModelsFile) {
  CheckpointBuilder builder = T5();
  builder.Metadata("num_heads", "2").Metadata("causal", "bottom_right");
  builder.Metadata("attend.layer_config", R"({"numKvHeads": 1, "num_heads": 7, "options": {"softcap": 3}})");
  const absl::StatusOr<LayerWeights> found =
      FindLayer(builder.Checkpoint(), "", {}, R"({"model_type": "gemma2", "num_attention_heads": 9,
                                                  "num_key_value_heads": 3, "query_pre_attn_scalar": 4,
                                                  "layer_types": ["full_attention"]})");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->config.num_heads(), 2);
  EXPECT_EQ(found->config.num_kv_heads(), 1);
  EXPECT_EQ(found->config.options().softcap(), 3);
  EXPECT_EQ(found->config.options().scale(), 0.5F);  // The file's, before the naming's.
  EXPECT_EQ(found->config.options().causal(), v1::CAUSAL_MODE_BOTTOM_RIGHT);
  EXPECT_EQ(found->config.rotary_embedding().base(), 10000);
}

TEST(LayerWeights, MetadataCanSayThatThereIsNoMask) {
  CheckpointBuilder builder = T5();
  builder.Metadata("num_heads", "2").Metadata("num_kv_heads", "1").Metadata("causal", "none");
  const absl::StatusOr<LayerWeights> found = FindLayer(builder.Checkpoint(), "");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->config.options().causal(), v1::CAUSAL_MODE_NONE);
  EXPECT_EQ(found->config.options().scale(), 1);  // T5's.
  EXPECT_THAT(found->notes, ElementsAre("no rotary embedding (assumed: nothing says otherwise)"));
}

// Gemma 3's window is halved for bidirectional layers alone.
TEST(LayerWeights, AWindowFollowsTheMaskThatTheConfigurationSays) {
  const CheckpointBuilder builder = T5();
  const auto find = [&](v1::CausalMode causal) {
    v1::LayerConfig config;
    config.mutable_options()->set_causal(causal);
    return FindLayer(builder.Checkpoint(), "", config, R"({"model_type": "gemma3_text", "num_attention_heads": 2,
        "num_key_value_heads": 1, "sliding_window": 512, "layer_types": ["sliding_attention"]})");
  };
  for (const v1::CausalMode causal :
       {v1::CAUSAL_MODE_UNSPECIFIED, v1::CAUSAL_MODE_BOTTOM_RIGHT, v1::CAUSAL_MODE_TOP_LEFT}) {
    const absl::StatusOr<LayerWeights> found = find(causal);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->config.options().sliding_window_left(), 511) << causal;
    EXPECT_FALSE(found->config.options().has_sliding_window_right()) << causal;
  }
  const absl::StatusOr<LayerWeights> both_sides = find(v1::CAUSAL_MODE_NONE);
  ASSERT_TRUE(both_sides.ok()) << both_sides.status();
  EXPECT_EQ(both_sides->config.options().sliding_window_left(), 256);
  EXPECT_EQ(both_sides->config.options().sliding_window_right(), 256);
}

TEST(LayerWeights, MetadataAreChecked) {
  const std::pair<const char*, const char*> cases[] = {
      {"num_heads", "0"}, {"num_heads", "two"},         {"num_kv_heads", "99999999999"},
      {"causal", "yes"},  {"attend.layer_config", "{"}, {"attend.layer_config", R"({"heads": 2})"}};
  for (const auto& [key, value] : cases) {
    EXPECT_THAT(Message(FindLayer(T5().Metadata(key, value).Checkpoint(), "").status()), HasSubstr(key)) << value;
  }
}

// Those of an upload are looked at before its bytes come.
TEST(LayerWeights, NamesOfAConfigurationAreCounted) {
  v1::LayerConfig config;
  for (int i = 0; i < 1025; ++i) config.add_ignored_tensors("junk");
  const absl::Status status = FindLayer(T5().Checkpoint(), "", config).status();
  EXPECT_EQ(GetErrorDetails(status).field, "config.ignored_tensors");
  EXPECT_THAT(Message(status), HasSubstr("has 1025 names; at most 1024 are read"));
}

TEST(LayerWeights, ErrorsAboutTheConfigurationNameItsField) {
  EXPECT_EQ(GetErrorDetails(FindLayer(T5().Checkpoint(), "").status()).field, "config.num_heads");
}

}  // namespace
}  // namespace attend::server
