#include "server/wire/upload_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

using Request = v1::CreateLayerRequest;

// The header of a message that ends with one.
absl::StatusOr<v1::CreateLayerHeader> ParseHeader(const WireBytes& message) {
  if (message.size() > kMaxUploadHeaderBytes) {
    return InvalidField("header", absl::StrCat("the message with the header has ", message.size(), " bytes; at most ",
                                               kMaxUploadHeaderBytes, " are read"));
  }
  std::string bytes(static_cast<std::size_t>(message.size()), '\0');
  message.Copy({0, message.size()}, bytes.data());
  Request request;
  if (!request.ParseFromString(bytes)) return MalformedRequest(0, "the header is not a serialized CreateLayerHeader");
  return std::move(*request.mutable_header());
}

}  // namespace

absl::StatusOr<UploadPart> ReadUploadPart(const WireBytes& message) {
  UploadPart part;
  bool has_header = false;  // Of several fields of a oneof the last one counts.
  WireReader reader(message);
  const absl::Status read = ForEachField(reader, [&](const WireField& field) {
    if (field.type != WireType::kLengthDelimited) return absl::OkStatus();
    if (field.number == Request::kHeaderFieldNumber) {
      has_header = true;
      part.chunk.reset();
    } else if (field.number == Request::kChunkFieldNumber) {
      has_header = false;
      part.chunk = field.range;
    }
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  if (!has_header) return part;
  absl::StatusOr<v1::CreateLayerHeader> header = ParseHeader(message);
  if (!header.ok()) return header.status();
  part.header = *std::move(header);
  return part;
}

std::vector<std::string_view> PiecesOf(const WireBytes& message, ByteRange range) {
  std::vector<std::string_view> pieces;
  while (!range.empty()) {
    const absl::Span<const std::uint8_t> piece = message.PieceAt(range.begin);
    const auto size = std::min<std::int64_t>(static_cast<std::int64_t>(piece.size()), range.size());
    pieces.emplace_back(reinterpret_cast<const char*>(piece.data()), static_cast<std::size_t>(size));
    range.begin += size;
  }
  return pieces;
}

}  // namespace attend::server
