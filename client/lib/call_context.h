// What every call of the client does with gRPC's context: deadline before, receipt and error details after.
//
// Pure; internal to the library.
#ifndef ATTEND_CLIENT_LIB_CALL_CONTEXT_H_
#define ATTEND_CLIENT_LIB_CALL_CONTEXT_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "client/lib/client.h"

namespace attend::client::internal {

// Errors: INVALID_ARGUMENT when the timeout is not positive and finite.
absl::Status CheckTimeout(const CallOptions& options);

// Sets the deadline (none for an infinite timeout) and whether to wait for a server.
void Prepare(const CallOptions& options, grpc::ClientContext* context);

// The trailer; empty when there is none. REQUIRES: the call has ended.
std::string ServerTiming(const grpc::ClientContext& context);

// The end of a call, with what its trailers say. REQUIRES: the call has ended.
absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& context);

}  // namespace attend::client::internal

#endif  // ATTEND_CLIENT_LIB_CALL_CONTEXT_H_
