// Guards that a seed gives PyTorch's weights, bit for bit. tests/vectors/torch_init_test.py asks PyTorch for others.
#include "server/layers/layer_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/support/golden_file.h"
#include "tests/support/same_bits.h"

namespace attend::server {
namespace {

using ::attend::testing::GoldenFile;
using ::attend::testing::ReadGoldenFile;
using ::attend::testing::SameBits;
using ::testing::HasSubstr;

absl::StatusOr<LayerWeights> Make(std::int64_t seed, std::int64_t embed_dim) {
  v1::SeededWeights seeded;
  seeded.set_seed(seed);
  seeded.set_embed_dim(embed_dim);
  return SeededLayer(seeded);
}

void ExpectSameBits(const void* actual, const std::vector<float>& expected, const std::string& what) {
  EXPECT_TRUE(SameBits({static_cast<const float*>(actual), expected.size()}, expected)) << what;
}

TEST(SeededWeights, AreThoseOfPyTorch) {
  const struct {
    const char* file;
    std::int64_t seed;
    std::int64_t embed_dim;
  } cases[] = {{"init_seed42_64", 42, 64}, {"init_seed7_96", 7, 96}};
  for (const auto& test : cases) {
    const GoldenFile golden = ReadGoldenFile(test.file);
    const absl::StatusOr<LayerWeights> weights = Make(test.seed, test.embed_dim);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const std::pair<const char*, const LinearView*> linears[] = {
        {"query", &weights->query}, {"key", &weights->key}, {"value", &weights->value}};
    for (const auto& [name, linear] : linears) {
      EXPECT_EQ(linear->out_features, test.embed_dim);
      EXPECT_EQ(linear->in_features, test.embed_dim);
      ExpectSameBits(linear->weight, golden.tensors.at(std::string(name) + ".weight").floats, name);
      ExpectSameBits(linear->bias, golden.tensors.at(std::string(name) + ".bias").floats, name);
    }
    EXPECT_EQ(weights->output.weight, nullptr);
  }
}

TEST(SeededWeights, OnlyTheLower32BitsOfTheSeedCount) {
  const absl::StatusOr<LayerWeights> one = Make(-1, 3), other = Make((std::int64_t{5} << 32) + 0xffffffff, 3);
  EXPECT_EQ(std::memcmp(one->query.weight, other->query.weight, SeededWeightBytes(3)), 0);
  EXPECT_NE(std::memcmp(one->query.weight, Make(1, 3)->query.weight, 36), 0);
}

TEST(SeededWeights, SizesAreChecked) {
  EXPECT_EQ(SeededWeightBytes(64), 3 * (64 * 64 + 64) * 4);
  EXPECT_TRUE(Make(0, 1).ok());
  for (const std::int64_t dim : {std::int64_t{0}, std::int64_t{-1}, kMaxSeededEmbedDim + 1}) {
    EXPECT_THAT(std::string(Make(0, dim).status().message()), HasSubstr("init.embed_dim is " + std::to_string(dim)));
  }
}

}  // namespace
}  // namespace attend::server
