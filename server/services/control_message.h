// Reading and writing the small messages of the standard protocols (health, reflection, server info), whose generated
// classes are good enough; tensors take another way, see server/wire/.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_SERVICES_CONTROL_MESSAGE_H_
#define ATTEND_SERVER_SERVICES_CONTROL_MESSAGE_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace attend::server {

// Parses `bytes` into `message`. Errors: INVALID_ARGUMENT when they are not a message of its type, RESOURCE_EXHAUSTED
// with reason LIMIT_EXCEEDED beyond 64 KiB: no honest control message comes near.
absl::Status ParseControlMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message);

grpc::ByteBuffer SerializeControlMessage(const google::protobuf::MessageLite& message);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_CONTROL_MESSAGE_H_
