#include "server/services/control_message.h"

#include <grpcpp/support/slice.h>

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

constexpr std::size_t kMaxControlMessageBytes = 64 << 10;

}  // namespace

absl::Status ParseControlMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message) {
  if (bytes.Length() > kMaxControlMessageBytes) {
    return WithDetails(absl::ResourceExhaustedError(absl::StrCat(
                           "the request has ", bytes.Length(), " bytes; this method accepts at most ",
                           kMaxControlMessageBytes, ", which no flag changes: it asks for a name or for nothing")),
                       {.reason = "LIMIT_EXCEEDED",
                        .field = "",
                        .metadata = {{"limit_bytes", absl::StrCat(kMaxControlMessageBytes)}}});
  }
  grpc::Slice flat;
  if (bytes.Valid() && bytes.DumpToSingleSlice(&flat).ok() &&
      message.ParseFromArray(flat.begin(), static_cast<int>(flat.size()))) {
    return absl::OkStatus();
  }
  return WithDetails(
      absl::InvalidArgumentError(absl::StrCat("the request is not a serialized ", message.GetTypeName())),
      {.reason = "MALFORMED_MESSAGE", .field = "", .metadata = {}});
}

grpc::ByteBuffer SerializeControlMessage(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace attend::server
