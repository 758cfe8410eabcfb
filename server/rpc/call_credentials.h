// What a call brings with it to say who calls.
#ifndef ATTEND_SERVER_RPC_CALL_CREDENTIALS_H_
#define ATTEND_SERVER_RPC_CALL_CREDENTIALS_H_

#include <grpcpp/server_context.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/identity/authenticator.h"
#include "server/identity/trusted_proxies.h"

namespace attend::server {

// A header of a request: how often it came, and one of its values.
struct SentHeader {
  std::size_t count = 0;
  std::string_view value;
};

// What a request shows of its caller, whatever transport it came by. What is not needed is not asked for.
struct CallerEvidence {
  absl::FunctionRef<SentHeader(const char* name)> header;
  // The names in the verified certificate of the connection: `uri:...`, `dns:...`, `cn:...`.
  absl::FunctionRef<std::vector<std::string>()> certificate;
  // As gRPC writes peers.
  absl::FunctionRef<std::string()> peer;
};

// Views of the headers. `mutual_tls`: whether connections show certificates, all of them verified. The header
// x-forwarded-client-cert counts from `proxies` alone; from others it means nothing. Errors: UNAUTHENTICATED with
// reason BAD_CREDENTIAL for two or more credentials of one kind, and for such a header that is malformed. Thread-safe.
absl::StatusOr<Credentials> CredentialsOf(const CallerEvidence& shown, bool mutual_tls, const TrustedProxies& proxies);
absl::StatusOr<Credentials> CredentialsOf(const grpc::ServerContext& context, bool mutual_tls,
                                          const TrustedProxies& proxies);

// Whether a call shows a token, or more than one.
bool ShowsToken(const grpc::ServerContext& context);

// Of a caller without a token, where nobody shows a certificate and no proxy is trusted: `peer` is then all there is.
absl::StatusOr<Credentials> CredentialsOfPeer(const std::string& peer);

// The address of a peer as gRPC writes them, without its port: `127.0.0.1`. Of IPv6 the first 64 bits, which are one
// site's; `unix` for every Unix socket.
std::string PeerAddress(const std::string& peer);

// Whether a peer as gRPC writes them (`ipv4:127.0.0.1:40000`) is on this machine.
bool IsLocalPeer(const std::string& peer);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CALL_CREDENTIALS_H_
