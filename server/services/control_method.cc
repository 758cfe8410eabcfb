#include "server/services/control_method.h"

#include <grpcpp/support/slice.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {

absl::Status ParseControlMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message,
                                 std::int64_t max_bytes) {
  if (static_cast<std::int64_t>(bytes.Length()) > max_bytes) {
    return WithDetails(
        absl::ResourceExhaustedError(absl::StrCat("the request has ", bytes.Length(),
                                                  " bytes; this method accepts at most ", max_bytes,
                                                  ", which no flag changes: it needs nothing of what tensors hold")),
        {.reason = reason::kLimitExceeded, .field = "", .metadata = {{"limit_bytes", absl::StrCat(max_bytes)}}});
  }
  grpc::Slice flat;
  if (bytes.Valid() && bytes.DumpToSingleSlice(&flat).ok() &&
      message.ParseFromArray(flat.begin(), static_cast<int>(flat.size()))) {
    return absl::OkStatus();
  }
  return WithDetails(
      absl::InvalidArgumentError(absl::StrCat("the request is not a serialized ", message.GetTypeName())),
      {.reason = reason::kMalformedRequest, .field = "", .metadata = {}});
}

grpc::ByteBuffer SerializeControlMessage(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace attend::server
