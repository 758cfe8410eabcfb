// The parts that both kinds of request share: the options, what to return, and what it may cost.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_REQUESTS_REQUEST_OPTIONS_H_
#define ATTEND_SERVER_REQUESTS_REQUEST_OPTIONS_H_

#include <array>
#include <cstdint>
#include <iterator>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "core/problem/options.h"
#include "server/requests/length_list.h"
#include "server/requests/tensor_codec.h"
#include "server/rpc/job.h"
#include "server/wire/request_reader.h"

namespace attend::server {

// What options depend on of a request's first tensor; zeros when it is absent.
struct FirstTensor {
  std::int64_t batch = 0;  // This and the next bound how many lengths there may be.
  std::int64_t queries = 0;
  bool is_double = false;  // So is the arithmetic then.
};

// How attention weights are returned.
struct WeightsForm {
  bool per_head = false;
  std::int64_t top_k = 0;
};

// The lists of kLengthsOptions, which AttentionOptions view.
using Lengths = std::array<LengthList, std::size(kLengthsOptions)>;

// AttentionOptions of a request, with what they point to. May be moved; views taken before stay valid.
struct OptionInputs {
  AttentionOptions values;  // Without views.
  WeightsForm weights;
  InputTensor mask;
  InputTensor key_mask;
  InputTensor bias;
  std::array<InputTensor, std::size(kPerHeadOptions)> per_head;
  Lengths lengths;

  // Appends the tensors that are not absent.
  void AppendTensors(InputTensors& tensors);
  // Appends the lists that are not empty.
  void AppendLists(LengthLists& lists);

  // All options as the core takes them.
  AttentionOptions View() const;
};

// Checks what can be said about the options alone. As many valid lengths as batch entries will be copied and not very
// many more cumulative lengths than queries, which bounds them by the request's own tensors. Errors: INVALID_ARGUMENT
// with the field below `options`. REQUIRES: `inputs` are default ones.
absl::Status CheckOptions(const RawOptions& raw, const FirstTensor& first, OptionInputs& inputs);

// Which tensors the response holds.
class OutputSet {
 public:
  // The output alone when none is named. Errors: INVALID_ARGUMENT with `outputs[i]` for the first kind that is not
  // `allowed`, with `options.top_k` when that is not given exactly with the kind that needs it.
  static absl::StatusOr<OutputSet> Check(const RawOutputs& raw, absl::Span<const v1::OutputKind> allowed,
                                         const WeightsForm& weights);

  bool Has(v1::OutputKind kind) const { return (bits_ >> kind & 1) != 0; }

 private:
  unsigned bits_ = 0;
};

// What computing a request takes; sums of sizes that alone fit into an int64.
struct RequestCost {
  double flops = 0;
  double memory_bytes = 0;    // Inputs, outputs and scratch.
  double list_bytes = 0;      // Of those: of lists, which are copied while the request itself is still there.
  double response_bytes = 0;  // Serialized.
};

// Errors: RESOURCE_EXHAUSTED naming the flag of the limit.
absl::Status CheckCost(const RequestCost& cost, const Limits& limits);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_REQUEST_OPTIONS_H_
