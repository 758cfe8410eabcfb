// The parts that both kinds of request share: the options, what to return, and what it may cost.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_REQUESTS_REQUEST_OPTIONS_H_
#define ATTEND_SERVER_REQUESTS_REQUEST_OPTIONS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "core/problem/options.h"
#include "server/requests/request_lengths.h"
#include "server/requests/tensor_codec.h"
#include "server/rpc/job.h"
#include "server/wire/request_reader.h"
#include "server/wire/wire_reader.h"

namespace attend::server {

// How attention weights are returned.
struct WeightsForm {
  bool per_head = false;
  std::int64_t top_k = 0;
};

// AttentionOptions of a request, with what they point to. May be moved; views taken before stay valid.
struct OptionInputs {
  AttentionOptions scalars;  // Its views are empty.
  bool sets_causal = false;  // Also to none.
  WeightsForm weights;
  InputTensor mask;
  InputTensor bias;
  InputTensor alibi_slopes;
  InputTensor sinks;
  Lengths lengths;

  // All options as the core takes them.
  AttentionOptions View() const;
};

// Checks what can be said about the options alone. As many valid lengths as batch entries are copied and not very many
// more cumulative lengths than queries, which bounds them by the request's own tensors. Errors: INVALID_ARGUMENT with
// the field below `options`.
absl::StatusOr<OptionInputs> CheckOptions(const RawOptions& raw, const WireBytes& bytes, const FirstAxes& first);

// Which tensors the response holds.
class OutputSet {
 public:
  bool Has(v1::OutputKind kind) const { return (bits_ >> kind & 1) != 0; }

 private:
  friend absl::StatusOr<OutputSet> CheckOutputs(const RawOutputs&, absl::Span<const v1::OutputKind>,
                                                const WeightsForm&);
  unsigned bits_ = 0;
};

// The output alone when none is named. Errors: INVALID_ARGUMENT with `outputs[i]` for the first kind that is not
// `allowed`, with `options.top_k` when that is not given exactly with the kind that needs it.
absl::StatusOr<OutputSet> CheckOutputs(const RawOutputs& raw, absl::Span<const v1::OutputKind> allowed,
                                       const WeightsForm& weights);

// What computing a request takes; sums of sizes that alone fit into an int64.
struct RequestCost {
  double flops = 0;
  double memory_bytes = 0;    // Inputs, outputs and scratch.
  double response_bytes = 0;  // Serialized.
};

// Errors: RESOURCE_EXHAUSTED naming the flag of the limit.
absl::Status CheckRequestSize(std::int64_t request_bytes, const Limits& limits);
absl::Status CheckCost(const RequestCost& cost, const Limits& limits);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_REQUEST_OPTIONS_H_
