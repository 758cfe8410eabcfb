#include "client/lib/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/lib/endpoints.h"

namespace attend::client {
namespace {

// Only UNAVAILABLE is repeated: the server says it when it has done nothing. The token bucket stops a client from
// multiplying the load of a server in trouble (gRPC proposal A6). Deleting a layer is not repeated: the second attempt
// would find nothing.
constexpr char kServiceConfig[] = R"({
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "attend.v1.AttentionService"},
             {"service": "attend.v1.LayerService", "method": "GetLayer"},
             {"service": "attend.v1.LayerService", "method": "ListLayers"}],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }],
  "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
})";

absl::Status CheckOptions(const ClientOptions& options) {
  if (options.max_message_bytes < 1 || options.max_message_bytes > std::numeric_limits<std::int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_message_bytes is ", options.max_message_bytes, "; it must be in [1, 2147483647]"));
  }
  if (options.tls.has_value() && options.tls->client_certificate.empty() != options.tls->client_key.empty()) {
    return absl::InvalidArgumentError("a client certificate and its private key must be given together");
  }
  return absl::OkStatus();
}

grpc::ChannelArguments Arguments(const ClientOptions& options, const Target& target) {
  const int max_bytes = static_cast<int>(options.max_message_bytes);
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(max_bytes);
  arguments.SetMaxReceiveMessageSize(max_bytes);
  arguments.SetServiceConfigJSON(kServiceConfig);
  // A server's operator may publish another service config in DNS; this client's promise is its own.
  arguments.SetInt("grpc.service_config_disable_resolution", 1);
  // A request that does not fit in this buffer (256 KiB by default) would never be repeated, whatever the policy says.
  arguments.SetInt("grpc.per_rpc_retry_buffer_size", max_bytes);
  // Proxies of the environment are for the web; a service in the same network is not behind one.
  arguments.SetInt("grpc.enable_http_proxy", 0);
  // Between two attempts a connection must have had the time to come back; gRPC would wait a second at first.
  arguments.SetInt("grpc.initial_reconnect_backoff_ms", 100);
  arguments.SetInt("grpc.max_reconnect_backoff_ms", 5000);
  if (!options.tls.has_value()) return arguments;
  const std::string& name = options.tls->server_name.empty() ? target.host : options.tls->server_name;
  if (!name.empty()) arguments.SetSslTargetNameOverride(name);
  return arguments;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const std::optional<TlsOptions>& tls) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = tls->ca_certificates;
  options.pem_cert_chain = tls->client_certificate;
  options.pem_private_key = tls->client_key;
  return grpc::SslCredentials(options);
}

}  // namespace

absl::StatusOr<Channels> MakeChannels(const ClientOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  const absl::StatusOr<Target> target = ResolveTarget(options.endpoints);
  if (!target.ok()) return target.status();
  const std::shared_ptr<grpc::ChannelCredentials> credentials = Credentials(options.tls);
  grpc::ChannelArguments arguments = Arguments(options, *target);
  std::shared_ptr<grpc::Channel> calls = grpc::CreateCustomChannel(target->uri, credentials, arguments);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return Channels{std::move(calls), grpc::CreateCustomChannel(target->uri, credentials, arguments)};
}

}  // namespace attend::client
