// The largest attention weights of each row, against sorting whole rows of weights.
#include "core/compute/top_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/runtime/executor.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;

struct Top {
  std::vector<float> weights;
  std::vector<std::int32_t> indices;
  friend bool operator==(const Top&, const Top&) = default;
};

Top Select(const std::vector<float>& weights, std::int64_t k) {
  Top top{std::vector<float>(static_cast<std::size_t>(k)), std::vector<std::int32_t>(static_cast<std::size_t>(k))};
  std::vector<std::pair<float, std::int32_t>> heap;
  SelectTopWeights(weights.data(), static_cast<std::int64_t>(weights.size()), k, top.weights.data(), top.indices.data(),
                   heap);
  return top;
}

TEST(SelectTopWeights, LargestFirstAndEqualOnesByIndex) {
  EXPECT_EQ(Select({0.1f, 0.4f, 0.2f, 0.4f, 0.3f}, 3), (Top{{0.4f, 0.4f, 0.3f}, {1, 3, 4}}));
  EXPECT_EQ(Select({0.2f, 0.2f, 0.2f, 0.2f, 0.2f}, 2), (Top{{0.2f, 0.2f}, {0, 1}}));
}

TEST(SelectTopWeights, WhatWeighsNothingIsNotListed) {
  EXPECT_EQ(Select({0, 0.5f, 0, 0.5f}, 3), (Top{{0.5f, 0.5f, 0}, {1, 3, -1}}));
  EXPECT_EQ(Select({0, 0}, 2), (Top{{0, 0}, {-1, -1}}));
  EXPECT_EQ(Select({1}, 4), (Top{{1, 0, 0, 0}, {0, -1, -1, -1}}));
}

TEST(SelectTopWeights, NaNIsLargest) {
  const Top top = Select({0.5f, NAN, 0.4f, NAN}, 3);
  EXPECT_EQ(top.indices, (std::vector<std::int32_t>{1, 3, 0}));
  EXPECT_TRUE(std::isnan(top.weights[0]));
}

// Sorts each row of [rows, columns].
Top BySorting(const std::vector<float>& weights, std::size_t columns, std::size_t k) {
  Top top;
  for (std::size_t row = 0; row < weights.size() / columns; ++row) {
    const float* w = &weights[row * columns];
    std::vector<std::int32_t> order(columns);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [w](std::int32_t a, std::int32_t b) { return w[a] > w[b]; });
    for (std::size_t i = 0; i < k; ++i) {
      const bool listed = i < columns && w[order[i]] > 0;
      top.weights.push_back(listed ? w[order[i]] : 0);
      top.indices.push_back(listed ? order[i] : -1);
    }
  }
  return top;
}

std::vector<SdpaCaseSpec> Specs() {
  std::vector<SdpaCaseSpec> specs;
  for (std::int64_t queries : {1, 7, 49, 130}) {
    for (std::int64_t keys : {1, 5, 70, 1100}) {
      SdpaCaseSpec spec;
      spec.batch = 2, spec.heads = 6, spec.kv_heads = 2;
      spec.queries = queries, spec.keys = keys;
      spec.seed = static_cast<std::uint64_t>(queries * keys);
      if (keys == 70) spec.causal = CausalMode::kBottomRight;
      if (queries == 7) spec.mask = true, spec.sinks = true;
      specs.push_back(spec);
    }
  }
  return specs;
}

// Top weights, per head or of the mean, with or without whole maps beside them.
TEST(TopWeights, AreThoseOfTheWholeMap) {
  constexpr std::int64_t kTop = 5;
  Executor executor({.num_threads = 2});
  for (const SdpaCaseSpec& spec : Specs()) {
    const SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    SdpaResult whole(problem);
    ASSERT_TRUE(ComputeSdpa(problem, whole.Outputs(), {}).ok());
    for (const bool per_head : {false, true}) {
      for (const bool with_maps : {false, true}) {
        const std::int64_t heads = per_head ? spec.heads : 1;
        const auto size = static_cast<std::size_t>(spec.batch * heads * spec.queries * kTop);
        Top top{std::vector<float>(size), std::vector<std::int32_t>(size)};
        SdpaResult result(problem);
        SdpaOutputs outputs = with_maps ? result.Outputs() : SdpaOutputs();
        outputs.top_weights.weights = SplitHeads(top.weights.data(), spec.batch, heads, spec.queries, kTop);
        outputs.top_weights.indices = SplitHeads(top.indices.data(), spec.batch, heads, spec.queries, kTop);
        ASSERT_TRUE(ComputeSdpa(problem, outputs, {.executor = &executor}).ok());
        const std::vector<float>& map = per_head ? whole.weights : whole.averaged;
        EXPECT_EQ(top, BySorting(map, static_cast<std::size_t>(spec.keys), kTop)) << spec << " per head " << per_head;
        if (with_maps) {
          EXPECT_TRUE(SameBits(result, whole));
        }
      }
    }
  }
}

TEST(TopWeights, OfFloat64) {
  SdpaCaseSpec spec;
  spec.heads = 2, spec.queries = 9, spec.keys = 40;
  const SdpaCase base(spec);
  const auto tensor = [](const std::vector<float>& x) { return testing::TypedTensor::From(x, DataType::kFloat64); };
  const testing::TypedTensor q = tensor(base.query), k = tensor(base.key), v = tensor(base.value);
  const SdpaProblem problem = *SdpaProblem::Create({q.View(1, 2, 9, 8), k.View(1, 1, 40, 8), v.View(1, 1, 40, 8), {}});
  testing::TypedTensor weights(DataType::kFloat64, 9 * 40), top(DataType::kFloat64, 9 * 3);
  std::vector<std::int32_t> indices(9 * 3);
  SdpaOutputs outputs{.averaged_weights = weights.MutableView(1, 1, 9, 40)};
  outputs.top_weights = {top.MutableView(1, 1, 9, 3), SplitHeads(indices.data(), 1, 1, 9, 3)};
  ASSERT_TRUE(ComputeSdpa(problem, outputs, {}).ok());
  const std::vector<double> map = weights.Doubles(), largest = top.Doubles();
  for (std::size_t row = 0; row < 9; ++row) {
    const auto begin = map.begin() + static_cast<std::ptrdiff_t>(row * 40);
    EXPECT_EQ(largest[row * 3], *std::max_element(begin, begin + 40));
    EXPECT_EQ(map[row * 40 + static_cast<std::size_t>(indices[row * 3])], largest[row * 3]);
  }
}

}  // namespace
}  // namespace attend
