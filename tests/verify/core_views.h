// The tensors and options of a request as the core takes them, without copies.
//
// All functions are pure. What they return is valid while the message is. They REQUIRE that the server has accepted the
// message, that tensors travel as `data`, and that ALiBi slopes and sinks are float32, or float64 where the arithmetic
// is.
#ifndef ATTEND_TESTS_VERIFY_CORE_VIEWS_H_
#define ATTEND_TESTS_VERIFY_CORE_VIEWS_H_

#include <cstdint>

#include "attend/v1/attention_service.pb.h"
#include "core/layer/attend_problem.h"
#include "core/problem/options.h"
#include "core/tensor/heads_view.h"

namespace attend::client {

// The lengths of the last four axes, with 1 for those that are missing in front.
struct Axes {
  std::int64_t batch = 1;
  std::int64_t heads = 1;
  std::int64_t length = 1;
  std::int64_t dim = 1;
};

Axes AxesOf(const v1::Tensor& tensor);

// [B, H, T, E], of a tensor in either layout.
TypedHeadsView DenseView(const v1::Tensor& tensor, v1::TensorLayout layout = v1::TENSOR_LAYOUT_BHTE);

// Whether the axes of heads and tokens are swapped: TENSOR_LAYOUT_BTHE, of a tensor that has both.
bool IsTokensFirst(const v1::Tensor& tensor, v1::TensorLayout layout);

// [B, T, D]
EmbeddingsView EmbeddingsOf(const v1::Tensor& tensor);

LayerView ToCore(const v1::AttentionLayer& proto);

// `scores` are the axes [B, H, T, S]. REQUIRES: a bias is float32, or float64 where the arithmetic is.
AttentionOptions ToCore(const v1::AttentionOptions& proto, Axes scores);

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_CORE_VIEWS_H_
