#include "client/lib/channel.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/substitute.h"
#include "client/lib/bearer_token.h"
#include "client/lib/connect_errno.h"

namespace attend::client {
namespace {

struct HostPort {
  std::string host;
  std::string port;
};

struct Address {
  bool is_ipv6 = false;
  std::string text;  // `10.0.0.1` or `fe80::1`
  std::string port;
};

constexpr char kDefaultPort[] = "50051";

absl::Status Malformed(const std::string& endpoint) {
  return absl::InvalidArgumentError(
      absl::StrCat("the endpoint '", endpoint,
                   "' is not host or host:port with a port from 1 to 65535, as in localhost:50051 or [::1]:50051"));
}

absl::StatusOr<HostPort> Split(const std::string& endpoint) {
  const std::string full = WithPort(endpoint);
  const std::size_t colon = full.rfind(':');
  if (colon == std::string::npos || colon == 0) return Malformed(endpoint);
  HostPort parts{full.substr(0, colon), full.substr(colon + 1)};
  std::uint32_t port = 0;
  if (!absl::SimpleAtoi(parts.port, &port) || port < 1 || port > 65535) return Malformed(endpoint);
  const bool bracketed = parts.host.front() == '[' && parts.host.back() == ']';
  if (bracketed) parts.host = parts.host.substr(1, parts.host.size() - 2);
  // A colon or a bracket that is left belongs to an IPv6 address without its brackets, or to nothing.
  if (parts.host.empty() || parts.host.find_first_of(bracketed ? "[]/ ," : "[]/:, ") != std::string::npos) {
    return Malformed(endpoint);
  }
  return parts;
}

// True and `address` filled when `parts` holds a numeric address.
bool Numeric(const HostPort& parts, Address* address) {
  std::uint8_t bytes[sizeof(in6_addr)];
  *address = {inet_pton(AF_INET6, parts.host.c_str(), bytes) == 1, parts.host, parts.port};
  return address->is_ipv6 || inet_pton(AF_INET, parts.host.c_str(), bytes) == 1;
}

absl::Status Resolve(const HostPort& parts, std::vector<Address>* addresses) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(parts.host.c_str(), parts.port.c_str(), &hints, &list);
  if (error != 0) {
    const std::string why = internal::ResolutionError(error);
    return absl::UnavailableError(absl::StrCat("cannot resolve '", parts.host, "': ", why));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    char text[INET6_ADDRSTRLEN];
    const void* bytes = entry->ai_family == AF_INET6
                            ? static_cast<const void*>(&reinterpret_cast<sockaddr_in6*>(entry->ai_addr)->sin6_addr)
                            : static_cast<const void*>(&reinterpret_cast<sockaddr_in*>(entry->ai_addr)->sin_addr);
    if (inet_ntop(entry->ai_family, bytes, text, sizeof(text)) == nullptr) continue;
    addresses->push_back({entry->ai_family == AF_INET6, text, parts.port});
  }
  return absl::OkStatus();
}

// One URI for all addresses. gRPC has no scheme for a mixed list, so IPv4 addresses join an IPv6 list in mapped form.
std::string Uri(const std::vector<Address>& addresses) {
  bool any_ipv6 = false;
  for (const Address& address : addresses) any_ipv6 = any_ipv6 || address.is_ipv6;
  return absl::StrCat(
      any_ipv6 ? "ipv6:" : "ipv4:", absl::StrJoin(addresses, ",", [any_ipv6](std::string* out, const Address& address) {
        const char* mapping = any_ipv6 && !address.is_ipv6 ? "::ffff:" : "";
        absl::StrAppend(out, any_ipv6 ? "[" : "", mapping, address.text, any_ipv6 ? "]" : "", ":", address.port);
      }));
}

bool IsUri(const std::string& endpoint) {
  return absl::StartsWith(endpoint, "unix:") || absl::StartsWith(endpoint, "dns:") ||
         absl::StartsWith(endpoint, "ipv4:") || absl::StartsWith(endpoint, "ipv6:");
}

// Only UNAVAILABLE is repeated: the server says it when it has done nothing. The token bucket stops a client from
// multiplying the load of a server in trouble (gRPC proposal A6). Deleting a layer is not repeated: the second attempt
// would find nothing.
constexpr char kServiceConfig[] = R"({$0
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

// gRPC counts a server without this service as healthy.
constexpr char kHealthConfig[] = R"("healthCheckConfig": {"serviceName": ""},)";

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

std::shared_ptr<grpc::ChannelCredentials> Credentials(const std::optional<TlsOptions>& tls) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = tls->ca_certificates;
  options.pem_cert_chain = tls->client_certificate;
  options.pem_private_key = tls->client_key;
  return grpc::SslCredentials(options);
}

}  // namespace

std::string WithPort(const std::string& endpoint) {
  const bool is_bracketed = !endpoint.empty() && endpoint.front() == '[' && endpoint.back() == ']';
  const bool has_colon = !is_bracketed && absl::StrContains(endpoint, ':');
  return endpoint.empty() || has_colon ? endpoint : absl::StrCat(endpoint, ":", kDefaultPort);
}

absl::StatusOr<Target> ResolveTarget(absl::Span<const std::string> endpoints) {
  if (endpoints.empty()) return absl::InvalidArgumentError("no endpoint is given; expected at least one host:port");
  if (endpoints.size() == 1 && IsUri(endpoints.front())) return Target{endpoints.front(), ""};
  Target target;
  std::vector<Address> addresses;
  for (const std::string& endpoint : endpoints) {
    const absl::StatusOr<HostPort> parts = Split(endpoint);
    if (!parts.ok()) return parts.status();
    if (target.host.empty()) target.host = parts->host;
    Address address;
    if (Numeric(*parts, &address)) {
      addresses.push_back(std::move(address));
    } else if (endpoints.size() == 1) {
      target.uri = absl::StrCat("dns:///", WithPort(endpoint));
      return target;
    } else if (absl::Status status = Resolve(*parts, &addresses); !status.ok()) {
      return status;
    }
  }
  target.uri = Uri(addresses);
  return target;
}

std::string internal::ResolutionError(int error) {
  return error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error);
}

grpc::ChannelArguments internal::Arguments(const ClientOptions& options, const Target& target, bool watch_health) {
  const int max_bytes = static_cast<int>(options.max_message_bytes);
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(max_bytes);
  arguments.SetMaxReceiveMessageSize(max_bytes);
  arguments.SetServiceConfigJSON(absl::Substitute(kServiceConfig, watch_health ? kHealthConfig : ""));
  // A server's operator may publish another service config in DNS; this client's promise is its own.
  arguments.SetInt("grpc.service_config_disable_resolution", 1);
  // A request that does not fit in this buffer (256 KiB by default) would never be repeated, whatever the policy says.
  arguments.SetInt("grpc.per_rpc_retry_buffer_size", max_bytes);
  // Proxies of the environment are for the web; a service in the same network is not behind one.
  arguments.SetInt("grpc.enable_http_proxy", 0);
  // Between two attempts a connection must have had the time to come back; gRPC would wait a second at first.
  arguments.SetInt("grpc.initial_reconnect_backoff_ms", 100);
  arguments.SetInt("grpc.max_reconnect_backoff_ms", 5000);
  // A connection whose server has vanished fails within a minute of a call, so that another endpoint takes its place.
  // A server of attend lets clients ping every 10 seconds (--min-ping-interval).
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 40000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  if (!options.tls.has_value()) return arguments;
  const std::string& name = options.tls->server_name.empty() ? target.host : options.tls->server_name;
  if (!name.empty()) arguments.SetSslTargetNameOverride(name);
  return arguments;
}

absl::StatusOr<Channels> MakeChannels(const ClientOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  const absl::StatusOr<Target> target = ResolveTarget(options.endpoints);
  if (!target.ok()) return target.status();
  if (absl::Status status = internal::CheckTokenMayGo(options, *target); !status.ok()) return status;
  internal::ReadProcessorFacts();
  const std::shared_ptr<grpc::ChannelCredentials> credentials = Credentials(options.tls);
  const auto make = [&](const grpc::ChannelArguments& arguments) {
    return grpc::experimental::CreateCustomChannelWithInterceptors(target->uri, credentials, arguments,
                                                                   internal::SendToken(options.token));
  };
  const bool watch_health = options.watch_health.value_or(options.endpoints.size() > 1);
  grpc::ChannelArguments arguments = internal::Arguments(options, *target, watch_health);
  Channels channels;
  channels.max_message_bytes = options.max_message_bytes;
  channels.calls = make(arguments);
  channels.health = watch_health ? make(internal::Arguments(options, *target, /*watch_health=*/false)) : channels.calls;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  channels.uploads = make(arguments);
  return channels;
}

}  // namespace attend::client
