// Makes the gRPC channel behind a Client: credentials, balancing, retries, limits.
#ifndef ATTEND_CLIENT_LIB_CHANNEL_H_
#define ATTEND_CLIENT_LIB_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "client/lib/client.h"

namespace attend::client {

// Errors: as Client::Connect. May be called concurrently.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ClientOptions& options);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_CHANNEL_H_
