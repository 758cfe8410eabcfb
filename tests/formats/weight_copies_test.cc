// Weights are copied only after somebody was asked, and no more of them than was said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "formats/layers/layer_reader.h"
#include "tests/formats/random_layer.h"
#include "tests/support/status_message.h"

namespace attend::formats {
namespace {

using ::attend::testing::Message;
using ::attend::testing::Transposed;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What is asked for, in bytes, and up to how many are granted.
struct Copies {
  std::int64_t limit = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> asked = {};
};

absl::StatusOr<AttentionLayer> Read(const CheckpointBuilder& builder, std::size_t offset, const Layer& layer,
                                    Copies& copies) {
  const auto may_copy = [&copies](std::int64_t bytes) {
    copies.asked.push_back(bytes);
    return bytes <= copies.limit ? absl::OkStatus() : absl::ResourceExhaustedError("no room");
  };
  return ReadLayer(builder.Checkpoint(offset), {.prefix = "", .caller = layer.Config(), .may_copy = may_copy});
}

// Every way to need a copy: so many bytes for query, key and value [12 or 6, 5] and output [5, 12].
TEST(WeightCopies, AreAskedForBeforeTheyAreMade) {
  const Layer layer(4, 2);
  const Matrix fused = FuseRows(layer, layer.query, layer.key, layer.value);
  const CheckpointBuilder separate = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
  CheckpointBuilder across, groups, biased = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kAll);
  across.Add("attn.c_attn.weight", Transposed(fused)).Add("attn.c_proj.weight", Transposed(layer.output));
  groups.Add("query_key_value.weight", fused).Add("dense.weight", layer.output);
  const struct {
    const char* name;
    const CheckpointBuilder& builder;
    std::size_t offset;
    std::vector<std::int64_t> asked;
  } cases[] = {
      {"aligned", separate, 0, {}},
      {"unaligned", separate, 1, {240, 360, 480, 720}},
      {"unaligned biases", biased, 1, {240, 288, 408, 432, 552, 576, 816, 840}},
      {"across", across, 0, {480, 720}},
      {"groups", groups, 0, {240, 360, 480}},
      {"unaligned groups", groups, 1, {480, 720, 840, 960, 1200}},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    Copies all;
    const absl::StatusOr<AttentionLayer> found = Read(test.builder, test.offset, layer, all);
    EXPECT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(all.asked, test.asked);
    for (std::size_t granted = 0; granted < test.asked.size(); ++granted) {
      Copies some{.limit = test.asked[granted] - 1};
      EXPECT_EQ(Read(test.builder, test.offset, layer, some).status().code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(some.asked.size(), granted + 1) << "nothing is read behind a refusal";
    }
  }
}

TEST(WeightCopies, WidenedNormsAreOnes) {
  const Layer layer(4, 2);
  CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "dense", Biases::kNone);
  builder.AddVector("q_layernorm.weight", layer.query_norm, "BF16");
  builder.AddVector("q_layernorm.bias", layer.query_norm, "BF16");
  Copies all;
  EXPECT_TRUE(Read(builder, 0, layer, all).ok());
  EXPECT_THAT(all.asked, ElementsAre(16, 32)) << "three floats each, in whole words of eight bytes";
  Copies none{.limit = 0};
  EXPECT_EQ(Read(builder, 0, layer, none).status().code(), absl::StatusCode::kResourceExhausted);
}

// They become settings, which are copied from message to message.
TEST(WeightCopies, SinksAreAsManyAsThereMayBeHeads) {
  const Layer layer(4, 2);
  for (const std::int64_t count : {1024, 1025}) {
    CheckpointBuilder builder = Separate(layer, "q_proj", "k_proj", "v_proj", "o_proj", Biases::kNone);
    builder.Add("sinks", {count}, std::string(static_cast<std::size_t>(2 * count), '\0'), "BF16");
    Copies copies;
    const absl::StatusOr<AttentionLayer> found = Read(builder, 0, layer, copies);
    EXPECT_EQ(found.ok(), count == 1024) << found.status();
    EXPECT_THAT(Message(found.status()), found.ok() ? HasSubstr("") : HasSubstr("at most 1024 numbers"));
    EXPECT_THAT(copies.asked, IsEmpty());
  }
}

}  // namespace
}  // namespace attend::formats
