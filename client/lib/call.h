// What every call of the client library does around its stub: the deadline in, the status and the receipt out.
//
// Internal to client/lib. Pure; may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_CALL_H_
#define ATTEND_CLIENT_LIB_CALL_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/lib/client.h"

namespace attend::client::internal {

// Errors: INVALID_ARGUMENT unless the timeout is positive and finite.
absl::Status CheckTimeout(const CallOptions& options);

// Sets what `options` say; the deadline counts from here. An infinite timeout sets none.
void Prepare(const CallOptions& options, grpc::ClientContext* context);

// The trailer `server-timing` of a call that has ended, or empty.
std::string ServerTimingOf(const grpc::ClientContext& context);

// `status` of a call that has ended, with the server's details (client/lib/server_error.h).
absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& context);

// Makes one call: `invoke(context, response)` is the stub's method, and returns when the call has ended.
template <typename Response, typename Invoke>
absl::StatusOr<Answer<Response>> Call(const CallOptions& options, const Invoke& invoke) {
  if (absl::Status status = CheckTimeout(options); !status.ok()) return status;
  grpc::ClientContext context;
  Prepare(options, &context);
  Answer<Response> answer;
  const std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  const grpc::Status status = invoke(&context, &answer.response);
  answer.round_trip = absl::FromChrono(std::chrono::steady_clock::now() - start);
  if (!status.ok()) return ToStatus(status, context);
  answer.server_timing = ParseServerTiming(ServerTimingOf(context));
  answer.peer = context.peer();
  return answer;
}

}  // namespace attend::client::internal

#endif  // ATTEND_CLIENT_LIB_CALL_H_
