// The messages of StreamAttend around the requests and responses that they carry, neither of which is copied: what a
// message carries refers to the transport's own slices, and an answer to those of its response.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_STREAM_MESSAGE_H_
#define ATTEND_SERVER_WIRE_STREAM_MESSAGE_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace attend::server {

// google.protobuf.Duration as it stands on the wire.
struct RawDuration {
  std::int64_t seconds = 0;
  std::int32_t nanos = 0;
};

// attend.v1.StreamAttendRequest as it stands on the wire; means what the generated class would hold.
struct StreamRequest {
  std::int64_t id = 0;
  std::optional<RawDuration> timeout;
  // A serialized AttendRequest, whose own bytes are not looked at. If the field is there several times, these are all
  // its payloads one after the other, which is what protobuf calls merging.
  std::optional<grpc::ByteBuffer> attend;
};

// Errors: those of WireReader, about the message and not about what `attend` holds.
absl::Status ReadStreamRequest(const grpc::ByteBuffer& message, StreamRequest& request);

// How long the request may wait; InfiniteDuration() when it does not say. Errors: INVALID_ARGUMENT naming `timeout`
// when it is no duration as protobuf defines them, or not more than 0.
absl::StatusOr<absl::Duration> CheckTimeout(const std::optional<RawDuration>& timeout);

// A serialized StreamAttendResponse: `response` is a serialized AttendResponse, `server_timing` is short, `status` not
// OK.
grpc::ByteBuffer StreamResponse(std::int64_t id, const std::string& server_timing, const grpc::ByteBuffer& response);
grpc::ByteBuffer StreamError(std::int64_t id, const std::string& server_timing, const absl::Status& status);

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_STREAM_MESSAGE_H_
