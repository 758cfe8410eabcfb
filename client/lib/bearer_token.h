// A caller's bearer token: where it may be sent, and how it gets into each call.
//
// Internal to client/lib. The functions are pure and may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_BEARER_TOKEN_H_
#define ATTEND_CLIENT_LIB_BEARER_TOKEN_H_

#include <grpcpp/support/client_interceptor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/lib/channel.h"
#include "client/lib/client.h"

namespace attend::client {

// Whether what is sent to each address of `target` stays on this machine: Unix sockets, loopback addresses, and
// `localhost`. False for any other name, wherever it may lead.
bool IsLocal(const Target& target);

// Errors: INVALID_ARGUMENT, without the token, for one that metadata cannot carry (gRPC would end the process). An
// empty token, which is none, passes.
absl::Status CheckToken(const std::string& token);

namespace internal {

// Errors: as CheckToken; INVALID_ARGUMENT for a token that would go to another machine in plaintext without
// `options.insecure`.
absl::Status CheckTokenMayGo(const ClientOptions& options, const Target& target);

using Interceptors = std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>>;

// What adds `authorization: Bearer TOKEN` to each call of a channel; nothing for an empty token. gRPC's own call
// credentials refuse plaintext, which loopback is.
Interceptors SendToken(const std::string& token);

}  // namespace internal
}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_BEARER_TOKEN_H_
