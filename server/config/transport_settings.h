// Turns TransportConfig and TlsConfig into what gRPC wants.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_CONFIG_TRANSPORT_SETTINGS_H_
#define ATTEND_SERVER_CONFIG_TRANSPORT_SETTINGS_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>

#include "absl/status/statusor.h"
#include "server/config/server_config.h"

namespace attend::server {

// Sets limits, keepalive, ages and channel arguments.
void ApplyTransportSettings(const TransportConfig& config, grpc::ServerBuilder& builder);

// Plaintext, TLS or mTLS. Errors: INVALID_ARGUMENT naming the flag whose file cannot be read or is no PEM; gRPC itself
// would only refuse each connection later.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const TlsConfig& config);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_TRANSPORT_SETTINGS_H_
