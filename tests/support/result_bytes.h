// Every result of a problem of any type as bytes, for comparing results bit for bit.
#ifndef ATTEND_TESTS_SUPPORT_RESULT_BYTES_H_
#define ATTEND_TESTS_SUPPORT_RESULT_BYTES_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/compute/compute_sdpa.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {

// The results that `ask` names, the output in the query's type first, its rows in the order [B, H, T] even where it is
// written as [B, T, H, V] (`merged`). kEverything includes averaged and top weights.
inline std::vector<std::byte> ResultBytes(const SdpaProblem& p, const ComputeContext& context, Ask ask,
                                          bool merged = false) {
  const std::int64_t b = p.batch(), h = p.num_heads(), t = p.query_length(), s = p.score_columns();
  const DataType arithmetic = p.is_double() ? DataType::kFloat64 : DataType::kFloat32;
  const auto tensor = [](DataType type, std::int64_t size) {
    return TypedTensor(type, static_cast<std::size_t>(size));
  };
  TypedTensor output = tensor(p.query().type, b * h * t * p.value_dim());
  TypedTensor weights = tensor(arithmetic, b * h * t * s), scores = weights, averaged = tensor(arithmetic, b * t * s);
  TypedTensor top = tensor(arithmetic, b * t * 3);
  std::vector<std::int32_t> indices(static_cast<std::size_t>(b * t * 3));
  std::vector<float> log_sum_exp(static_cast<std::size_t>(b * h * t));
  SdpaOutputs to;
  to.output = merged ? MergedTypedHeads(output.bytes.data(), output.type, b, h, t, p.value_dim())
                     : output.MutableView(b, h, t, p.value_dim());
  to.log_sum_exp = log_sum_exp.data();
  if (ask != Ask::kOutput) {
    to.attention_weights = weights.MutableView(b, h, t, s);
    to.scores = scores.MutableView(b, h, t, s);
  }
  if (ask == Ask::kEverything) {
    to.averaged_weights = averaged.MutableView(b, 1, t, s);
    to.top_weights = {top.MutableView(b, 1, t, 3), SplitHeads(indices.data(), b, 1, t, 3)};
  }
  EXPECT_TRUE(ComputeSdpa(p, to, context).ok());
  std::vector<std::byte> bytes;
  const auto append = [&bytes](const void* from, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), begin, begin + size);
  };
  for (std::int64_t i = 0; i < b * h * t; ++i) {
    append(to.output.Row(i / (h * t), i / t % h, i % t),
           static_cast<std::size_t>(p.value_dim() * ElementSize(output.type)));
  }
  for (const TypedTensor* part : {&weights, &scores, &averaged, &top}) append(part->bytes.data(), part->bytes.size());
  append(indices.data(), indices.size() * sizeof(std::int32_t));
  append(log_sum_exp.data(), log_sum_exp.size() * sizeof(float));
  return bytes;
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_RESULT_BYTES_H_
