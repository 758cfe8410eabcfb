// One call of the service as the command sees it: either method in, named tensors out.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_COMPUTATION_H_
#define ATTEND_CLIENT_CLI_REQUESTS_COMPUTATION_H_

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/lib/client.h"
#include "client/lib/tensor.h"

namespace attend::client {

using ComputationRequest = std::variant<v1::AttendRequest, v1::ScaledDotProductAttentionRequest>;

struct Outcome {
  std::vector<NamedTensor> tensors;  // Those the response holds, named as its fields, in the fields' order.
  std::vector<std::pair<std::string, std::string>> receipt;  // What the response tells of the server, by field.
  std::vector<StageTime> server_timing;
  absl::Duration round_trip;
  std::string peer;
};

// Makes the call. Errors: those of Client; INTERNAL when a returned tensor does not hold what its shape says.
absl::StatusOr<Outcome> Send(const Client& client, const ComputationRequest& request, const CallOptions& options);

// The tensor of this name, or null.
const Tensor* Find(const std::vector<NamedTensor>& tensors, const std::string& name);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_COMPUTATION_H_
