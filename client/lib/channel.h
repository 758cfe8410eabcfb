// Makes the gRPC channels behind a Client: credentials, balancing, retries, limits.
#ifndef ATTEND_CLIENT_LIB_CHANNEL_H_
#define ATTEND_CLIENT_LIB_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "client/lib/client.h"

namespace attend::client {

// To the same endpoints. Neither connects before its first call.
struct Channels {
  std::shared_ptr<grpc::Channel> calls;
  // For messages that follow one another without end: a call that might be repeated keeps all that it has sent, and
  // this channel repeats none. It has a connection of its own, so that calls do not queue behind an upload.
  std::shared_ptr<grpc::Channel> uploads;
};

// Errors: as Client::Connect. May be called concurrently.
absl::StatusOr<Channels> MakeChannels(const ClientOptions& options);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_CHANNEL_H_
