// Who computed a response: attend.v1.Receipt, as it stands in every response.
#ifndef ATTEND_SERVER_REQUESTS_RECEIPT_H_
#define ATTEND_SERVER_REQUESTS_RECEIPT_H_

#include <string>
#include <string_view>

#include "core/kernels/instruction_set.h"
#include "server/wire/response_buffer.h"

namespace attend::server {

// The receipts of one server. Serialized once, but for the layer's etag. Immutable; may be used concurrently.
class Receipts {
 public:
  explicit Receipts(InstructionSet instruction_set);

  // The field `receipt` of a response. `layer_etag` is that of the named layer that computes it, or empty.
  SerializedField Of(std::string_view layer_etag) const;

 private:
  std::string fields_;  // All of Receipt but `layer_etag`.
  SerializedField without_etag_;
};

// Receipt.kernel: the name of the kernels that compute with `instruction_set`, for example `avx512`.
std::string KernelName(InstructionSet instruction_set);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_RECEIPT_H_
