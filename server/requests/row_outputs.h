// Where in a response the tensors with a row for each query go, for both kinds of response: views of the memory that is
// sent, absent for tensors that were not added.
#ifndef ATTEND_SERVER_REQUESTS_ROW_OUTPUTS_H_
#define ATTEND_SERVER_REQUESTS_ROW_OUTPUTS_H_

#include <cstdint>

#include "core/problem/sdpa_problem.h"
#include "server/requests/request_options.h"
#include "server/wire/response_buffer.h"

namespace attend::server {

// `Response` is the message, which knows the field numbers; `Problem` the core's. Thread-compatible.
template <typename Response>
class RowOutputs {
 public:
  template <typename Problem>
  RowOutputs(const Problem& problem, const WeightsForm& form, const ResponseBuffer& response)
      : response_(response),
        form_(form),
        type_(problem.is_double() ? DataType::kFloat64 : DataType::kFloat32),
        batch_(problem.batch()),
        heads_(problem.num_heads()),
        queries_(problem.query_length()),
        columns_(problem.score_columns()) {}

  MutableTypedHeadsView Scores() const { return View(Response::kScoresFieldNumber, heads_, columns_); }
  MutableTypedHeadsView PerHeadWeights() const {
    if (!form_.per_head) return {};
    return View(Response::kAttentionWeightsFieldNumber, heads_, columns_);
  }
  MutableTypedHeadsView AveragedWeights() const {
    if (form_.per_head) return {};
    return View(Response::kAttentionWeightsFieldNumber, 1, columns_);
  }
  TopWeights Top() const {
    const std::int64_t heads = form_.per_head ? heads_ : 1;
    auto* indices = static_cast<std::int32_t*>(response_.Elements(Response::kTopAttentionIndicesFieldNumber));
    return {View(Response::kTopAttentionWeightsFieldNumber, heads, form_.top_k),
            SplitHeads(indices, batch_, heads, queries_, form_.top_k)};
  }

 private:
  MutableTypedHeadsView View(int field_number, std::int64_t heads, std::int64_t columns) const {
    return SplitTypedHeads(response_.Elements(field_number), type_, batch_, heads, queries_, columns);
  }

  const ResponseBuffer& response_;
  const WeightsForm form_;
  const DataType type_;
  const std::int64_t batch_, heads_, queries_, columns_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_ROW_OUTPUTS_H_
