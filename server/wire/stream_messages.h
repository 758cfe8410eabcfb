// The messages of streams around the bytes that they carry, which are not copied: a request refers to the transport's
// own slices, a response to those of its payload.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_STREAM_MESSAGES_H_
#define ATTEND_SERVER_WIRE_STREAM_MESSAGES_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attend/v1/layer_service.pb.h"
#include "google/rpc/status.pb.h"
#include "server/wire/wire_format.h"

namespace attend::server {

// google.protobuf.Duration as it stands on the wire.
struct RawDuration {
  std::int64_t seconds = 0;
  std::int32_t nanos = 0;
};

// The members of the oneof that says what to compute.
enum class RequestKind : std::uint8_t { kAttend, kScaledDotProductAttention };

// A serialized request, whose own bytes are not looked at. If its field is there several times, these are all payloads
// one after the other, which is what protobuf calls merging.
struct CarriedRequest {
  RequestKind kind = RequestKind::kAttend;
  grpc::ByteBuffer bytes;
};

// attend.v1.StreamAttendRequest as it stands on the wire; means what the generated class would hold.
struct StreamRequest {
  std::int64_t id = 0;
  std::optional<RawDuration> timeout;
  std::optional<CarriedRequest> request;
};

// Errors: those of WireReader, about the message and not about what the request that it carries holds; INVALID_ARGUMENT
// beyond kMaxStreamRequestFields fields. So the polling thread's time and memory for a message are bounded, whatever
// its size.
absl::Status ReadStreamRequest(const grpc::ByteBuffer& message, StreamRequest& request);

// How long the request may wait; InfiniteDuration() when it does not say. Errors: INVALID_ARGUMENT naming `timeout`
// when it is no duration as protobuf defines them, or not more than 0.
absl::StatusOr<absl::Duration> CheckTimeout(const std::optional<RawDuration>& timeout);

// The error of a message that carries no request.
absl::Status MissingRequest();

// A serialized StreamAttendResponse: `response` is a serialized response to a request of `kind`, `server_timing` is
// short, `status` not OK.
grpc::ByteBuffer StreamResponse(std::int64_t id, const std::string& server_timing, RequestKind kind,
                                const grpc::ByteBuffer& response);
grpc::ByteBuffer StreamError(std::int64_t id, const std::string& server_timing, const google::rpc::Status& status);

// CreateLayer.

// What one message carries: the header or a chunk; neither when it is empty.
struct UploadPart {
  std::optional<v1::CreateLayerHeader> header;
  std::optional<ByteRange> chunk;
};

// Errors: those of WireReader; INVALID_ARGUMENT for a header that is too large or that protobuf does not read.
absl::StatusOr<UploadPart> ReadUploadPart(const WireBytes& message);

// The bytes of `range`, piece by piece; views of `message`.
std::vector<std::string_view> PiecesOf(const WireBytes& message, ByteRange range);

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_STREAM_MESSAGES_H_
