#include "client/lib/attend_stream.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "attend/v1/attention_service.pb.h"
#include "client/lib/call.h"
#include "client/lib/server_error.h"
#include "google/rpc/status.pb.h"

namespace attend::client {
namespace {

absl::Status CheckTimeout(absl::Duration timeout) {
  if (timeout > absl::ZeroDuration()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the timeout is ", absl::FormatDuration(timeout), "; it must be more than 0"));
}

// What google.protobuf.Duration can hold, and more than any stream lives.
constexpr absl::Duration kLongestTimeout = absl::Hours(24 * 365);

void SetTimeout(absl::Duration timeout, google::protobuf::Duration* message) {
  timeout = std::min(timeout, kLongestTimeout);
  absl::Duration rest;
  message->set_seconds(absl::IDivDuration(timeout, absl::Seconds(1), &rest));
  // A positive time shorter than a nanosecond is not zero.
  const auto nanos = static_cast<std::int32_t>(absl::ToInt64Nanoseconds(rest));
  message->set_nanos(message->seconds() == 0 && nanos == 0 ? 1 : nanos);
}

StreamResult ToResult(v1::StreamAttendResponse&& message) {
  const absl::Status other = absl::FailedPreconditionError("the request was of the other kind");
  StreamResult result{.id = 0, .response = other, .sdpa_response = other, .server_timing = {}};
  result.id = message.id();
  result.server_timing = ParseServerTiming(message.server_timing());
  if (message.has_status()) {
    const google::rpc::Status& status = message.status();
    result.response =
        internal::WithServerError(absl::Status(static_cast<absl::StatusCode>(status.code()), status.message()),
                                  status.SerializeAsString(), message.server_timing());
    result.sdpa_response = result.response.status();
  } else if (message.has_scaled_dot_product_attention()) {
    result.sdpa_response = std::move(*message.mutable_scaled_dot_product_attention());
  } else {
    result.response = std::move(*message.mutable_attend());
  }
  return result;
}

}  // namespace

AttendStream::AttendStream(std::unique_ptr<Rpc> rpc) : rpc_(std::move(rpc)) {}

AttendStream::~AttendStream() {
  if (rpc_->finished) return;
  Cancel();
  while (Receive()) {
  }
  (void)Finish();
}

absl::Status AttendStream::Send(std::int64_t id, v1::AttendRequest request, absl::Duration timeout) {
  v1::StreamAttendRequest message;
  *message.mutable_attend() = std::move(request);
  return SendMessage(id, std::move(message), timeout);
}

absl::Status AttendStream::Send(std::int64_t id, v1::ScaledDotProductAttentionRequest request, absl::Duration timeout) {
  v1::StreamAttendRequest message;
  *message.mutable_scaled_dot_product_attention() = std::move(request);
  return SendMessage(id, std::move(message), timeout);
}

absl::Status AttendStream::SendMessage(std::int64_t id, v1::StreamAttendRequest message, absl::Duration timeout) {
  if (absl::Status status = CheckTimeout(timeout); !status.ok()) return status;
  message.set_id(id);
  if (timeout != absl::InfiniteDuration()) SetTimeout(timeout, message.mutable_timeout());
  absl::MutexLock lock(&rpc_->send_mu);
  if (rpc_->closed) return absl::FailedPreconditionError("CloseSending was called; this stream takes no more requests");
  return rpc_->stream->Write(message) ? absl::OkStatus()
                                      : absl::UnavailableError("the stream has ended; Finish says why");
}

void AttendStream::CloseSending() {
  absl::MutexLock lock(&rpc_->send_mu);
  if (!std::exchange(rpc_->closed, true)) rpc_->stream->WritesDone();
}

std::optional<StreamResult> AttendStream::Receive() {
  v1::StreamAttendResponse message;
  if (!rpc_->stream->Read(&message)) return std::nullopt;
  return ToResult(std::move(message));
}

absl::Status AttendStream::Finish() {
  rpc_->finished = true;
  return internal::ToStatus(rpc_->stream->Finish(), rpc_->context);
}

void AttendStream::Cancel() { rpc_->context.TryCancel(); }

absl::Status AttendAll(const Client& client, absl::Span<const v1::AttendRequest> requests, const CallOptions& options,
                       absl::FunctionRef<void(std::size_t, StreamResult)> on_result) {
  const absl::StatusOr<std::unique_ptr<AttendStream>> stream = client.StreamAttend(options);
  if (!stream.ok()) return stream.status();
  std::thread sender([&stream = **stream, requests] {
    for (std::size_t i = 0; i < requests.size() && stream.Send(i, requests[i]).ok(); ++i) {
    }
    stream.CloseSending();
  });
  while (std::optional<StreamResult> result = (*stream)->Receive()) {
    const auto i = static_cast<std::size_t>(result->id);
    if (i < requests.size()) on_result(i, *std::move(result));
  }
  sender.join();
  return (*stream)->Finish();
}

}  // namespace attend::client
