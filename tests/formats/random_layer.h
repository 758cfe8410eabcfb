// A small attention layer with random weights, checkpoints that hold it, and the reader's call.
#ifndef ATTEND_TESTS_FORMATS_RANDOM_LAYER_H_
#define ATTEND_TESTS_FORMATS_RANDOM_LAYER_H_

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "formats/layers/layer_reader.h"
#include "formats/layers/layer_settings.h"
#include "tests/support/checkpoint_builder.h"

namespace attend::formats {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::Matrix;
using ::attend::testing::RandomMatrix;
using ::attend::testing::Stacked;

inline constexpr std::int64_t kEmbedDim = 5;
inline constexpr std::int64_t kHeadDim = 3;

// A layer with heads as given, and what a checkpoint of it must be found as.
struct Layer {
  Layer(std::int64_t query_heads, std::int64_t kv_heads) : num_heads(query_heads), num_kv_heads(kv_heads) {
    std::mt19937 random(static_cast<std::uint32_t>(100 * query_heads + kv_heads));
    query = RandomMatrix(query_heads * kHeadDim, kEmbedDim, random);
    key = RandomMatrix(kv_heads * kHeadDim, kEmbedDim, random);
    value = RandomMatrix(kv_heads * kHeadDim, kEmbedDim, random);
    output = RandomMatrix(kEmbedDim, query_heads * kHeadDim, random);
    query_bias = RandomMatrix(query.rows, 1, random);
    key_bias = RandomMatrix(key.rows, 1, random);
    value_bias = RandomMatrix(value.rows, 1, random);
    output_bias = RandomMatrix(kEmbedDim, 1, random);
    query_norm = RandomMatrix(kHeadDim, 1, random);
    key_norm = RandomMatrix(kHeadDim, 1, random);
  }

  CallerSettings Config() const {
    CallerSettings caller;
    caller.num_heads = num_heads;
    caller.num_kv_heads = num_kv_heads;
    return caller;
  }

  std::int64_t num_heads;
  std::int64_t num_kv_heads;
  Matrix query, key, value, output;
  Matrix query_bias, key_bias, value_bias, output_bias;
  Matrix query_norm, key_norm;
};

inline absl::StatusOr<AttentionLayer> FindLayer(const Checkpoint& checkpoint, std::string_view prefix,
                                                const CallerSettings& caller = {},
                                                const std::optional<std::string>& config_json = std::nullopt) {
  return ReadLayer(checkpoint, {prefix, caller, config_json});
}

inline CallerSettings HeadsOf(std::int64_t heads, std::int64_t kv_heads = 0) {
  CallerSettings caller;
  caller.num_heads = heads;
  caller.num_kv_heads = kv_heads;
  return caller;
}

enum class Biases { kNone, kAll, kAllButOutput };

// Query, key, value and output with these names, weights before biases.
inline CheckpointBuilder Separate(const Layer& layer, const std::string& query, const std::string& key,
                                  const std::string& value, const std::string& output, Biases biases,
                                  const std::string& dtype = "F32") {
  CheckpointBuilder builder;
  const std::pair<std::string, std::pair<const Matrix*, const Matrix*>> linears[] = {
      {query, {&layer.query, &layer.query_bias}},
      {key, {&layer.key, &layer.key_bias}},
      {value, {&layer.value, &layer.value_bias}},
      {output, {&layer.output, &layer.output_bias}}};
  for (const auto& [name, linear] : linears) {
    builder.Add(name + ".weight", *linear.first, dtype);
    const bool has_bias = biases == Biases::kAll || (biases == Biases::kAllButOutput && linear.first != &layer.output);
    if (has_bias) builder.AddVector(name + ".bias", *linear.second, dtype);
  }
  return builder;
}

inline Matrix FuseRows(const Layer&, const Matrix& query, const Matrix& key, const Matrix& value) {
  return Stacked({query, key, value});
}

}  // namespace attend::formats

#endif  // ATTEND_TESTS_FORMATS_RANDOM_LAYER_H_
