// Results over other keys that a request asks to have merged with its own.
#ifndef ATTEND_SERVER_REQUESTS_PARTIAL_INPUTS_H_
#define ATTEND_SERVER_REQUESTS_PARTIAL_INPUTS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/compute/compute_sdpa.h"
#include "core/compute/merge.h"
#include "core/problem/sdpa_problem.h"
#include "server/requests/request_options.h"
#include "server/requests/tensor_codec.h"
#include "server/wire/request_reader.h"

namespace attend::server {

// A default one is absent.
struct PartialInputs {
  InputTensor output;       // [P, (B,) (H,) T, V]
  InputTensor log_sum_exp;  // [P, (B,) (H,) T]

  explicit operator bool() const { return static_cast<bool>(output); }

  // One view for each of the P parts.
  std::vector<PartialAttention> Parts() const;

  // Errors: INVALID_ARGUMENT with `partials` when an output is asked for that is not that of all keys.
  absl::Status CheckWith(const OutputSet& outputs) const;
};

// Checks types and shapes against those of the request's query and value. Errors: INVALID_ARGUMENT with the field below
// `partials`. Pure; may be called concurrently.
absl::StatusOr<PartialInputs> CheckPartials(const RawPartials& raw, const InputTensor& query, const InputTensor& value);

// ComputeSdpa, and then `parts` merged with the result. REQUIRES: the problem's query is FLOAT32; `outputs` has no
// views but output and log_sum_exp, both dense.
absl::Status ComputeAndMerge(const SdpaProblem& problem, const std::vector<PartialAttention>& parts,
                             const SdpaOutputs& outputs, const ComputeContext& context);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_PARTIAL_INPUTS_H_
