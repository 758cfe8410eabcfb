// Reads proto3's JSON into the bytes of a message, without building the message: the JSON is let go of as its bytes are
// written, so that a request in numbers takes the memory of its larger form and not of both.
//
// Fields have their names in lowerCamelCase or as in proto/. int64 may be strings, floats too (and `"NaN"`,
// `"Infinity"`, `"-Infinity"`); enums are names or numbers, bytes are base64 (either alphabet, with or without
// padding), and null is an absent field. An unknown or ill-typed field is refused, and so are a field that comes twice,
// also under its two names, and a second member of a oneof.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_CONNECT_JSON_READER_H_
#define ATTEND_SERVER_CONNECT_JSON_READER_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/statusor.h"

namespace attend::server {

// The bytes of a message of this type; `json` is empty afterwards. Errors: INVALID_ARGUMENT with a sentence that names
// the field and the character, and with the field as a detail. Maps and the well-known types are not supported, because
// no request has one.
absl::StatusOr<grpc::ByteBuffer> ReadJson(grpc::ByteBuffer& json, const google::protobuf::Descriptor& type);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_JSON_READER_H_
