// Requests that use every field, for tests. Their numbers are the same on every run.
#ifndef ATTEND_TESTS_SUPPORT_EXAMPLE_REQUESTS_H_
#define ATTEND_TESTS_SUPPORT_EXAMPLE_REQUESTS_H_

#include <cstdint>
#include <string>

#include "attend/v1/attention_service.pb.h"
#include "tests/support/tensor_messages.h"

namespace attend {

// Names every output of the method, one of them twice, out of order.
inline void AskForAll(v1::ScaledDotProductAttentionRequest& request) {
  for (const v1::OutputKind kind : {v1::OUTPUT_KIND_SCORES, v1::OUTPUT_KIND_OUTPUT, v1::OUTPUT_KIND_LOG_SUM_EXP,
                                    v1::OUTPUT_KIND_ATTENTION_WEIGHTS, v1::OUTPUT_KIND_OUTPUT}) {
    request.add_outputs(kind);
  }
}
inline void AskForAll(v1::AttendRequest& request) {
  for (const v1::OutputKind kind :
       {v1::OUTPUT_KIND_SCORES, v1::OUTPUT_KIND_OUTPUT, v1::OUTPUT_KIND_LOG_SUM_EXP, v1::OUTPUT_KIND_ATTENTION_WEIGHTS,
        v1::OUTPUT_KIND_OUTPUT, v1::OUTPUT_KIND_QUERY, v1::OUTPUT_KIND_KEY, v1::OUTPUT_KIND_VALUE}) {
    request.add_outputs(kind);
  }
}

// Every option at once. B = 2, H = 4, K = 2, T = 3, S = 5, E = 6, V = 7.
inline v1::ScaledDotProductAttentionRequest FullSdpaRequest() {
  v1::ScaledDotProductAttentionRequest request;
  *request.mutable_query() = RandomTensor({2, 4, 3, 6}, 1);
  *request.mutable_key() = RandomTensor({2, 2, 5, 6}, 2);
  *request.mutable_value() = RandomTensor({2, 2, 5, 7}, 3);
  v1::AttentionOptions& options = *request.mutable_options();
  options.set_scale(0.7f);
  options.set_softcap(3.0f);
  options.set_causal(v1::CAUSAL_MODE_BOTTOM_RIGHT);
  options.set_sliding_window_left(3);
  options.add_valid_lengths(5);
  options.add_valid_lengths(4);
  *options.mutable_mask() =
      BoolTensor({2, 1, 3, 5}, std::string("\1\1\1\1\1\1\0\1\2\1\1\1\1\1\1\1\0\1\1\1\1\1\1\xFF\1\1\1\0\1\1", 30));
  *options.mutable_bias() = RandomTensor({1, 4, 1, 5}, 4);
  *options.mutable_alibi_slopes() = RandomTensor({4}, 5);
  *options.mutable_sinks() = RandomTensor({4}, 6);
  options.set_attention_weights_form(v1::ATTENTION_WEIGHTS_FORM_PER_HEAD);
  AskForAll(request);
  return request;
}

// A layer with biases and grouped heads. B = 2, T = 3, S = 4, D = 6, D' = 5, H = 4, K = 2, E = 3, V = 2, D_out = 7.
inline v1::AttendRequest FullAttendRequest() {
  v1::AttendRequest request;
  *request.mutable_embeddings() = RandomTensor({2, 3, 6}, 1);
  *request.mutable_context() = RandomTensor({2, 4, 5}, 2);
  v1::AttentionLayer& layer = *request.mutable_layer();
  layer.set_num_heads(4);
  layer.set_num_kv_heads(2);
  const auto set = [](v1::Linear* linear, std::int64_t out, std::int64_t in, std::uint32_t seed) {
    *linear->mutable_weight() = RandomTensor({out, in}, seed);
    *linear->mutable_bias() = RandomTensor({out}, seed + 100);
  };
  set(layer.mutable_query_projection(), 4 * 3, 6, 11);
  set(layer.mutable_key_projection(), 2 * 3, 5, 12);
  set(layer.mutable_value_projection(), 2 * 2, 5, 13);
  set(layer.mutable_output_projection(), 7, 4 * 2, 14);
  AskForAll(request);
  return request;
}

}  // namespace attend

#endif  // ATTEND_TESTS_SUPPORT_EXAMPLE_REQUESTS_H_
