// EstimateCost: what a request would cost, by the checks and the sums of the call itself.
#ifndef ATTEND_SERVER_SERVICES_ESTIMATE_COST_H_
#define ATTEND_SERVER_SERVICES_ESTIMATE_COST_H_

#include <string>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "server/requests/decoders.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// The estimators of both kinds of request.
struct Estimators {
  Estimator attend;
  Estimator scaled_dot_product_attention;
};

// For a caller of `tenant`. Errors: those of the decoder, but for limits, and INVALID_ARGUMENT for a message without a
// request. Thread-safe.
absl::StatusOr<v1::EstimateCostResponse> EstimateCost(const v1::EstimateCostRequest& request, const std::string& tenant,
                                                      const Estimators& estimators, const RequestServices& services);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_ESTIMATE_COST_H_
