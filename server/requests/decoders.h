// The codec's door: one decoder for each method that computes.
//
// A decoder reads the request in place and checks every rule once in this order. Before it takes memory, for lists in 3
// and for tensors behind 5, it asks the memory budget:
//   1. the wire format; the size is checked before (RequestRun);
//   2. each tensor's type, shape and number of bytes, the enums, how many axes tensors have in common, and how long
//      lists are; then that all tensors have contents;
//   3. lists are copied, because rules look at their numbers;
//   4. the rules of attention (AttendProblem::Create, SdpaProblem::Create);
//   5. the limits on response, memory and arithmetic.
// What a rejected request costs is bounded by the bytes it sent, whatever it claims.
//
// The jobs own their inputs, aligned, in one piece of memory; Compute writes straight into the memory that TakeResponse
// hands to the transport. Responses use the form (`data` or `values`) of the request's first tensor.
#ifndef ATTEND_SERVER_REQUESTS_DECODERS_H_
#define ATTEND_SERVER_REQUESTS_DECODERS_H_

#include <functional>

#include "absl/status/statusor.h"
#include "core/kernels/fast_kernels.h"
#include "server/layers/layer_registry.h"
#include "server/requests/request_options.h"
#include "server/rpc/job.h"

namespace attend::server {

// What a request costs on a server with so many compute threads. Checks as a decoder does, but for the limits, and
// takes tensors without contents. Errors: as a decoder's. Thread-safe.
using Estimator =
    std::function<absl::StatusOr<RequestCost>(const grpc::ByteBuffer& request, const DecodeContext& context)>;

// attend.v1.AttendRequest -> attend.v1.AttendResponse. Layers are looked up by the caller's tenant and name in
// `layers`, which must outlive the decoder; null when there are none. A job holds on to the layer that it found.
// `kernels`: what jobs will be computed with, for the receipt.
Decoder AttendDecoder(const LayerRegistry* layers, const KernelChoice& kernels = {});
Estimator AttendEstimator(const LayerRegistry* layers, const KernelChoice& kernels = {});

// attend.v1.ScaledDotProductAttentionRequest -> attend.v1.ScaledDotProductAttentionResponse.
Decoder SdpaDecoder(const KernelChoice& kernels = {});
Estimator SdpaEstimator(const KernelChoice& kernels = {});

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_DECODERS_H_
