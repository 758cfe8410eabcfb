#include "server/wire/stream_messages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/base/limits.h"
#include "server/wire/wire_format.h"

namespace attend::server {
namespace {

// What google/protobuf/duration.proto allows: about 10000 years.
constexpr std::int64_t kMaxSeconds = 315'576'000'000;
constexpr std::int32_t kMaxNanos = 999'999'999;

absl::Status ReadDuration(WireReader reader, RawDuration& duration) {
  return ForEachField(reader, [&](const WireField& field) {
    if (field.type == WireType::kVarint && field.number == google::protobuf::Duration::kSecondsFieldNumber) {
      duration.seconds = static_cast<std::int64_t>(field.value);
    }
    if (field.type == WireType::kVarint && field.number == google::protobuf::Duration::kNanosFieldNumber) {
      duration.nanos = static_cast<std::int32_t>(field.value);
    }
    return absl::OkStatus();
  });
}

// The header of a message that ends with one.
absl::StatusOr<v1::CreateLayerHeader> ParseHeader(const WireBytes& message) {
  if (message.size() > kMaxUploadHeaderBytes) {
    return InvalidField("header", absl::StrCat("the message with the header has ", message.size(), " bytes; at most ",
                                               kMaxUploadHeaderBytes, " are read"));
  }
  std::string bytes(static_cast<std::size_t>(message.size()), '\0');
  message.Copy({0, message.size()}, bytes.data());
  v1::CreateLayerRequest request;
  if (!request.ParseFromString(bytes)) return MalformedRequest(0, "the header is not a serialized CreateLayerHeader");
  return std::move(*request.mutable_header());
}

}  // namespace

absl::Status ReadStreamRequest(const grpc::ByteBuffer& message, StreamRequest& request) {
  const WireBytes bytes(message);
  WireReader reader(bytes);
  std::optional<RequestKind> kind;  // Of several members of a oneof the last one counts.
  std::vector<grpc::Slice> carried;
  const auto carry = [&](RequestKind member, const WireField& field) {
    if (kind != member) carried.clear();
    kind = member;
    bytes.Share(field.range, carried);
  };
  absl::Status read = ForEachField(reader, [&](const WireField& field) {
    if (field.number == v1::StreamAttendRequest::kIdFieldNumber && field.type == WireType::kVarint)
      request.id = static_cast<std::int64_t>(field.value);
    if (field.type != WireType::kLengthDelimited) return absl::OkStatus();
    switch (field.number) {
      case v1::StreamAttendRequest::kAttendFieldNumber: carry(RequestKind::kAttend, field); break;
      case v1::StreamAttendRequest::kScaledDotProductAttentionFieldNumber:
        carry(RequestKind::kScaledDotProductAttention, field);
        break;
      case v1::StreamAttendRequest::kTimeoutFieldNumber:
        if (!request.timeout) request.timeout.emplace();
        return ReadDuration(reader.Message(field), *request.timeout);
      default: break;
    }
    return absl::OkStatus();
  });
  if (read.ok() && kind) request.request = {*kind, grpc::ByteBuffer(carried.data(), carried.size())};
  return read;
}

absl::Status MissingRequest() {
  return InvalidField("request",
                      "the request is missing; set attend or scaled_dot_product_attention to say what to compute");
}

absl::StatusOr<absl::Duration> CheckTimeout(const std::optional<RawDuration>& timeout) {
  if (!timeout) return absl::InfiniteDuration();
  const auto [seconds, nanos] = *timeout;
  const bool positive = seconds >= 0 && nanos >= 0 && (seconds > 0 || nanos > 0);
  if (positive && seconds <= kMaxSeconds && nanos <= kMaxNanos) {
    return absl::Seconds(seconds) + absl::Nanoseconds(nanos);
  }
  return InvalidField("timeout", absl::StrCat("timeout is ", seconds, " s and ", nanos,
                                              " ns; it must be a duration of more than 0, or be left out"));
}

grpc::ByteBuffer StreamResponse(std::int64_t id, const std::string& server_timing, RequestKind kind,
                                const grpc::ByteBuffer& response) {
  v1::StreamAttendResponse before;
  before.set_id(id);
  before.set_server_timing(server_timing);
  std::string header = before.SerializeAsString();
  const int field_number = kind == RequestKind::kAttend
                               ? v1::StreamAttendResponse::kAttendFieldNumber
                               : v1::StreamAttendResponse::kScaledDotProductAttentionFieldNumber;
  AppendLengthPrefix(field_number, static_cast<std::int64_t>(response.Length()), header);
  std::vector<grpc::Slice> slices;
  if (!response.Dump(&slices).ok()) slices.clear();
  slices.insert(slices.begin(), grpc::Slice(header));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

grpc::ByteBuffer StreamError(std::int64_t id, const std::string& server_timing, const google::rpc::Status& status) {
  v1::StreamAttendResponse response;
  response.set_id(id);
  response.set_server_timing(server_timing);
  *response.mutable_status() = status;
  const grpc::Slice slice(response.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<UploadPart> ReadUploadPart(const WireBytes& message) {
  UploadPart part;
  bool has_header = false;  // Of several fields of a oneof the last one counts.
  WireReader reader(message);
  const absl::Status read = ForEachField(reader, [&](const WireField& field) {
    if (field.type != WireType::kLengthDelimited) return absl::OkStatus();
    if (field.number == v1::CreateLayerRequest::kHeaderFieldNumber) {
      has_header = true;
      part.chunk.reset();
    } else if (field.number == v1::CreateLayerRequest::kChunkFieldNumber) {
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
