// Where a Client connects to and how: endpoints, credentials, balancing, retries, limits.
#ifndef ATTEND_CLIENT_LIB_CHANNEL_H_
#define ATTEND_CLIENT_LIB_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/lib/client.h"

namespace attend::client {

// Where to connect to, and the host name that the servers' certificates must carry.
struct Target {
  std::string uri;   // `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `dns:///attend.example:50051`, `unix:/run/attend.sock`
  std::string host;  // Of the first endpoint; empty for a Unix socket.
};

// `endpoint` with port 50051 where it has none: `attend.example`, `10.0.0.1`, `[::1]`. Target URIs stay as they are.
std::string WithPort(const std::string& endpoint);

// Each endpoint is `host:port`, `1.2.3.4:port`, `[::1]:port`, the same without the port, or a target URI
// (`dns:///host:port`, `unix:/path`) that is passed on as it is and must stand alone. A single host name stays a name,
// so that gRPC balances over all of its addresses and resolves it again when connections break. In a list of several
// endpoints, names are resolved here, once.
//
// Errors: INVALID_ARGUMENT for an empty list or a malformed endpoint; UNAVAILABLE when a name has no address. May block
// on name resolution; may be called concurrently.
absl::StatusOr<Target> ResolveTarget(absl::Span<const std::string> endpoints);

// To the same endpoints. None connects before its first call.
struct Channels {
  std::shared_ptr<grpc::Channel> calls;
  // For messages that follow one another without end: a call that might be repeated keeps all that it has sent, and
  // this channel repeats none. It has a connection of its own, so that calls do not queue behind an upload.
  std::shared_ptr<grpc::Channel> uploads;
  // For questions about health: reaches servers that say NOT_SERVING, which the others may not.
  std::shared_ptr<grpc::Channel> health;
  std::int64_t max_message_bytes = 0;  // As ClientOptions say.
};

// Errors: as Client::Connect. May be called concurrently.
absl::StatusOr<Channels> MakeChannels(const ClientOptions& options);

namespace internal {

// Why getaddrinfo has just failed with `error`; for EAI_SYSTEM errno knows. Internal to attend.
std::string ResolutionError(int error);

// What gRPC is told of a channel to `target`. REQUIRES: options.max_message_bytes fits in 31 bits.
grpc::ChannelArguments Arguments(const ClientOptions& options, const Target& target, bool watch_health);

}  // namespace internal

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_CHANNEL_H_
