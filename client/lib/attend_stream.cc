#include "client/lib/attend_stream.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "attend/v1/attention_service.pb.h"
#include "client/lib/call.h"
#include "client/lib/server_error.h"
#include "client/lib/server_version.h"
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
  StreamResult result;
  result.id = message.id();
  result.server_timing = ParseServerTiming(message.server_timing());
  if (message.has_status()) {
    const google::rpc::Status& status = message.status();
    result.response =
        internal::WithServerError(absl::Status(static_cast<absl::StatusCode>(status.code()), status.message()),
                                  status.SerializeAsString(), message.server_timing());
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
  if (absl::Status status = CheckTimeout(timeout); !status.ok()) return status;
  v1::StreamAttendRequest message;
  message.set_id(id);
  if (timeout != absl::InfiniteDuration()) SetTimeout(timeout, message.mutable_timeout());
  *message.mutable_attend() = std::move(request);
  NoteUnknownField(message);
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
  StreamResult result = ToResult(std::move(message));
  if (result.response.ok()) {
    if (absl::Status status = CheckUnderstood(result); !status.ok()) result.response = std::move(status);
  }
  return result;
}

void AttendStream::NoteUnknownField(const v1::StreamAttendRequest& message) {
  if (rpc_->has_receipt.load(std::memory_order_relaxed)) return;  // All of a stream goes to one server.
  std::string field = internal::FieldUnknownTo01(message);
  if (field.empty()) return;
  absl::MutexLock lock(&rpc_->unknown_mu);
  rpc_->unknown_fields[message.id()] = std::move(field);
}

absl::Status AttendStream::CheckUnderstood(const StreamResult& result) {
  if (result.response->has_receipt()) {
    if (!rpc_->has_receipt.exchange(true)) {
      absl::MutexLock lock(&rpc_->unknown_mu);
      rpc_->unknown_fields.clear();
    }
    return absl::OkStatus();
  }
  std::string field;
  {
    absl::MutexLock lock(&rpc_->unknown_mu);
    const auto found = rpc_->unknown_fields.find(result.id);
    if (found == rpc_->unknown_fields.end()) return absl::OkStatus();
    field = found->second;
  }
  return internal::UnknownField(*rpc_->stub, absl::FromChrono(rpc_->context.deadline()), field,
                                "its answer is to another question; leave the field out, or ask a newer server");
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
