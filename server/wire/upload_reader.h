// The messages of an upload (attend.v1.CreateLayerRequest), whose chunks stay where the transport left them.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_UPLOAD_READER_H_
#define ATTEND_SERVER_WIRE_UPLOAD_READER_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "server/wire/wire_reader.h"

namespace attend::server {

// No honest header comes near.
inline constexpr std::int64_t kMaxUploadHeaderBytes = 64 << 10;

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

#endif  // ATTEND_SERVER_WIRE_UPLOAD_READER_H_
