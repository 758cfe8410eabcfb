#include "server/wire/stream_message.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/rpc/status.h"
#include "server/wire/wire_reader.h"
#include "server/wire/wire_writer.h"

namespace attend::server {
namespace {

using Request = v1::StreamAttendRequest;
using Response = v1::StreamAttendResponse;

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

}  // namespace

absl::Status ReadStreamRequest(const grpc::ByteBuffer& message, StreamRequest& request) {
  const WireBytes bytes(message);
  WireReader reader(bytes);
  std::vector<grpc::Slice> attend;
  bool has_attend = false;
  absl::Status read = ForEachField(reader, [&](const WireField& field) {
    const bool is_message = field.type == WireType::kLengthDelimited;
    if (field.number == Request::kIdFieldNumber && field.type == WireType::kVarint)
      request.id = static_cast<std::int64_t>(field.value);
    if (field.number == Request::kAttendFieldNumber && is_message) {
      has_attend = true;
      bytes.Share(field.range, attend);
    }
    if (field.number != Request::kTimeoutFieldNumber || !is_message) return absl::OkStatus();
    if (!request.timeout) request.timeout.emplace();
    return ReadDuration(reader.Message(field), *request.timeout);
  });
  if (read.ok() && has_attend) request.attend.emplace(attend.data(), attend.size());
  return read;
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

grpc::ByteBuffer StreamResponse(std::int64_t id, const std::string& server_timing, const grpc::ByteBuffer& response) {
  Response before;
  before.set_id(id);
  before.set_server_timing(server_timing);
  std::string header = before.SerializeAsString();
  AppendLengthPrefix(Response::kAttendFieldNumber, static_cast<std::int64_t>(response.Length()), header);
  std::vector<grpc::Slice> slices;
  if (!response.Dump(&slices).ok()) slices.clear();
  slices.insert(slices.begin(), grpc::Slice(header));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

grpc::ByteBuffer StreamError(std::int64_t id, const std::string& server_timing, const absl::Status& status) {
  Response response;
  response.set_id(id);
  response.set_server_timing(server_timing);
  *response.mutable_status() = ToRpcStatus(status);
  const grpc::Slice slice(response.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace attend::server
