// What a call brings with it to say who calls.
#ifndef ATTEND_SERVER_RPC_CALL_CREDENTIALS_H_
#define ATTEND_SERVER_RPC_CALL_CREDENTIALS_H_

#include <grpcpp/server_context.h>

#include "absl/status/statusor.h"
#include "server/identity/authenticator.h"

namespace attend::server {

// Views of `context`. `mutual_tls`: whether connections show certificates, all of them verified. Errors:
// UNAUTHENTICATED with reason BAD_CREDENTIAL for two or more credentials of one kind. Thread-safe.
absl::StatusOr<Credentials> CredentialsOf(const grpc::ServerContext& context, bool mutual_tls);

// Whether a peer as gRPC writes them (`ipv4:127.0.0.1:40000`) is on this machine.
bool IsLocalPeer(const std::string& peer);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CALL_CREDENTIALS_H_
