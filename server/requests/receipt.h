// Who computed a response: attend.v1.Receipt, as it stands in every response.
#ifndef ATTEND_SERVER_REQUESTS_RECEIPT_H_
#define ATTEND_SERVER_REQUESTS_RECEIPT_H_

#include <string>
#include <string_view>

#include "core/kernels/fast_kernels.h"
#include "server/wire/response_buffer.h"

namespace attend::server {

// The receipts of one server. Serialized once, but for the layer's etag and fast kernels. Immutable; may be used
// concurrently.
class Receipts {
 public:
  explicit Receipts(const KernelChoice& kernels);

  // The kernels that there are.
  FastKernels fast_kernels() const { return kernels_.fast; }

  // The field `receipt` of a response. `layer_etag` is that of the named layer that computes it, or empty; `used` the
  // fast kernels that compute it.
  SerializedField Of(std::string_view layer_etag, FastKernels used) const;

 private:
  std::string Fields(FastKernels used) const;  // All of Receipt but `layer_etag`.

  KernelChoice kernels_;
  SerializedField exact_without_etag_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_RECEIPT_H_
