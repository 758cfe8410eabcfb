// From any absl::Status to what travels: the one function that every error of this server goes through.
//
// A gRPC error is a code, a sentence and, in the trailer `grpc-status-details-bin`, a serialized google.rpc.Status:
//   - ErrorInfo, always: `reason` from the error's details, else the name of its code (`INVALID_ARGUMENT`); `domain`
//     is kErrorDomain; `metadata` holds the named values;
//   - BadRequest, always when the code is INVALID_ARGUMENT: one violation with the field's path, or with an empty one
//     when the message as a whole is wrong (bytes that are no protobuf: the description says at which position);
//   - RetryInfo, when the error carries a retry delay: see kRetryDelayKey.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_RPC_STATUS_H_
#define ATTEND_SERVER_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/rpc/status.pb.h"

namespace attend::server {

// The key of ErrorDetails::metadata under which an error says when to try again, in whole milliseconds (`"250"`, in
// [0, 86400000]; larger ones count as a day). It becomes google.rpc.RetryInfo and is left out of ErrorInfo's metadata.
inline constexpr char kRetryDelayKey[] = "retry_delay_ms";

// UNAVAILABLE: not now, but in `delay_ms` milliseconds perhaps. `why` is a sentence without its end.
absl::Status BusyError(std::string_view reason, std::string_view why, std::int64_t delay_ms);

// DEADLINE_EXCEEDED, reason NO_MESSAGE: a call's first message has not come whole within --first-message-timeout, which
// is `timeout`.
absl::Status NoMessageError(absl::Duration timeout);

// Every serialized google.rpc.Status is smaller. Clients accept 8 KiB of metadata by default, and a trailer that does
// not fit loses the whole error, so that longer texts are cut (between characters) and end in an ellipsis.
inline constexpr std::size_t kMaxStatusDetailsBytes = 4096;

// The sentence is cut to this many bytes: it travels in `grpc-message` too, where a byte may take three.
inline constexpr std::size_t kMaxStatusMessageBytes = 512;

// `text` as UTF-8 of at most `max_bytes`: each byte that is not part of a well-formed character becomes `?`; what is
// too long is cut between characters and ends in `...`. REQUIRES: max_bytes >= 3.
std::string SafeUtf8(std::string_view text, std::size_t max_bytes);

// What travels for `status`: details and all. Code 0 and nothing else for OK. Bytes that are not UTF-8 become `?`,
// because protobuf strings and gRPC clients insist on it.
google::rpc::Status ToRpcStatus(const absl::Status& status);

// The same as the end of a call.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_STATUS_H_
