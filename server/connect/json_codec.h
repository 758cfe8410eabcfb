// JSON requests and responses of a method: JSON becomes the bytes of the message before its decoder reads them, and the
// bytes of the response become JSON. Everything between is the method's own.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_CONNECT_JSON_CODEC_H_
#define ATTEND_SERVER_CONNECT_JSON_CODEC_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>

#include "absl/status/statusor.h"
#include "server/http/http_message.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// The message of this type that the JSON describes, as ReadJson (json_reader.h); `json` is empty afterwards. Errors:
// INVALID_ARGUMENT, reason MALFORMED_REQUEST.
absl::StatusOr<grpc::ByteBuffer> JsonToBinary(grpc::ByteBuffer& json, const google::protobuf::Descriptor& type);

// The text is written as it is sent: until then the body holds the message. Errors: RESOURCE_EXHAUSTED naming
// --max-json-bytes when it would be longer. REQUIRES: `binary` is such a message.
absl::StatusOr<HttpBody> BinaryToJson(const grpc::ByteBuffer& binary, const google::protobuf::Descriptor& type,
                                      std::size_t max_bytes);

// `method` for JSON. Requests that may compute are decoded on the executor's threads alone, all others when they are
// longer than a few kilobytes. Three times the bytes of a request are reserved before it is read: for the JSON, and
// for twice as many that `[1,1,...]` becomes while the JSON is let go of.
RequestMethod JsonMethod(const RequestMethod& method, const google::protobuf::MethodDescriptor& descriptor);

// How much memory decoding JSON takes, for each byte of it.
inline constexpr double kJsonMemory = 3;
// How much an answer takes while BinaryToJson reads it, for each byte of the response; then the message alone is left.
inline constexpr double kJsonAnswerMemory = 2;

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_JSON_CODEC_H_
