// The words of the Connect protocol for unary calls over HTTP (https://connectrpc.com/docs/protocol).
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_CONNECT_CONNECT_PROTOCOL_H_
#define ATTEND_SERVER_CONNECT_CONNECT_PROTOCOL_H_

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/rpc/status.pb.h"
#include "server/http/http_message.h"

namespace attend::server {

inline constexpr char kJsonType[] = "application/json";
inline constexpr char kProtoType[] = "application/proto";

// An error as Connect sends it: the status of its code, and JSON with code, message and the details that gRPC sends
// (server/rpc/status.h), each with its type, its bytes in base64 and, under `debug`, as JSON. REQUIRES: not OK.
HttpResponse ConnectError(const absl::Status& status);
// The same for what travels of it. REQUIRES: the code is not 0.
HttpResponse ConnectError(const google::rpc::Status& status);

// Whether the request's protocol version and encoding are served. Errors: INVALID_ARGUMENT, UNIMPLEMENTED.
absl::Status CheckConnectHeaders(const HttpRequest& request);

// The time of `Connect-Timeout-Ms`; nothing without it. Errors: INVALID_ARGUMENT.
absl::StatusOr<std::optional<std::chrono::milliseconds>> ConnectTimeout(const HttpRequest& request);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_CONNECT_PROTOCOL_H_
