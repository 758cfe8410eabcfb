// What a configuration becomes on the machine that it meets: the checks that need more than the configuration itself.
//
// Starting and --check-config ask the same function, so that what one accepts the other does too. Thread-safe.
#ifndef ATTEND_SERVER_CONFIG_START_SETTINGS_H_
#define ATTEND_SERVER_CONFIG_START_SETTINGS_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>

#include "absl/status/statusor.h"
#include "core/kernels/fast_kernels.h"
#include "server/config/server_config.h"
#include "server/config/tls_pair.h"
#include "server/identity/authenticator.h"
#include "server/identity/trusted_proxies.h"

namespace attend::server {

struct StartSettings {
  KernelChoice kernels;  // What `auto` stands for here, or what was asked for.
  std::shared_ptr<grpc::ServerCredentials> credentials;
  std::unique_ptr<Authenticator> authenticator;
  TrustedProxies proxies;
  std::shared_ptr<TlsPair> tls;  // What they read; null for plaintext.
};

// Chooses the kernels and reads the files of TLS and principals. Binds nothing. Errors: INVALID_ARGUMENT naming the
// flag, for kernels that this machine does not run and for a file that cannot be used.
absl::StatusOr<StartSettings> ResolveStartSettings(const ServerConfig& config);

// Sets the transport's limits, keepalive, ages and channel arguments.
void ApplyTransportSettings(const TransportConfig& config, grpc::ServerBuilder& builder);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_START_SETTINGS_H_
