#include "client/lib/attend_stream.h"

#include <algorithm>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

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

// Why a server did not compute a request. Its code may be any number, and that of OK is no error: a StatusOr without a
// value would end the process.
absl::Status ErrorOf(const google::rpc::Status& status) {
  absl::Status error(static_cast<absl::StatusCode>(status.code()), status.message());
  if (!error.ok()) return error;
  return absl::InternalError(absl::StrCat("the server answered with an error whose code is OK: ", status.message()));
}

StreamResult ToResult(v1::StreamAttendResponse&& message) {
  const absl::Status other = absl::FailedPreconditionError("the request was of the other kind");
  StreamResult result{.id = 0, .response = other, .sdpa_response = other, .server_timing = {}};
  result.id = message.id();
  result.server_timing = ParseServerTiming(message.server_timing());
  if (message.has_status()) {
    const google::rpc::Status& status = message.status();
    result.response = internal::WithServerError(ErrorOf(status), status.SerializeAsString(), message.server_timing());
    result.sdpa_response = result.response.status();
  } else if (message.has_scaled_dot_product_attention()) {
    result.sdpa_response = std::move(*message.mutable_scaled_dot_product_attention());
  } else {
    result.response = std::move(*message.mutable_attend());
  }
  return result;
}

bool HasReceipt(const StreamResult& result) {
  return (result.response.ok() && result.response->has_receipt()) ||
         (result.sdpa_response.ok() && result.sdpa_response->has_receipt());
}

// Sends a list of requests on a thread of its own. One that ends before Join cancels the stream, so that the thread
// does not go on sending what nobody waits for.
class Sender {
 public:
  explicit Sender(AttendStream& stream) : stream_(stream) {}
  ~Sender() {
    if (!thread_.joinable()) return;
    stream_.Cancel();
    thread_.join();
  }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  // Errors: RESOURCE_EXHAUSTED when the system gives no thread. Called once.
  absl::Status Start(absl::Span<const v1::AttendRequest> requests) {
    try {
      thread_ = std::thread([this, requests] { Run(requests); });
      return absl::OkStatus();
    } catch (const std::system_error& error) {
      return absl::ResourceExhaustedError(absl::StrCat("no thread can be started to send requests: ", error.what()));
    }
  }

  // Waits until all are sent, or the stream has ended. Errors: RESOURCE_EXHAUSTED when memory was short.
  absl::Status Join() {
    thread_.join();
    return out_of_memory_ ? absl::ResourceExhaustedError("out of memory while requests were sent") : absl::OkStatus();
  }

  // The requests that were not sent, by number, and why. REQUIRES: Join has returned.
  const std::vector<std::pair<std::size_t, absl::Status>>& too_large() const { return too_large_; }

 private:
  void Run(absl::Span<const v1::AttendRequest> requests) {
    try {
      absl::Status sent;
      for (std::size_t i = 0; i < requests.size() && (sent.ok() || absl::IsResourceExhausted(sent)); ++i) {
        sent = stream_.Send(static_cast<std::int64_t>(i), requests[i]);
        if (absl::IsResourceExhausted(sent)) too_large_.emplace_back(i, sent);
      }
      stream_.CloseSending();
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
      stream_.Cancel();  // Whoever receives would wait for the rest.
    }
  }

  AttendStream& stream_;
  // Of the thread, until it has been joined.
  bool out_of_memory_ = false;
  std::vector<std::pair<std::size_t, absl::Status>> too_large_;
  std::thread thread_;
};

}  // namespace

AttendStream::AttendStream(std::unique_ptr<Rpc> rpc) : rpc_(std::move(rpc)) {}

AttendStream::~AttendStream() {
  if (rpc_->finished) return;
  Cancel();
  // Not Receive, which may ask the server for its version.
  for (v1::StreamAttendResponse unread; rpc_->stream->Read(&unread);) {
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
  if (absl::Status status = internal::CheckSize(message, rpc_->max_message_bytes); !status.ok()) return status;
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
  CheckUnderstood(result);
  return result;
}

void AttendStream::NoteUnknownField(const v1::StreamAttendRequest& message) {
  if (rpc_->has_receipt.load(std::memory_order_relaxed)) return;  // All of a stream goes to one server.
  std::string field = internal::FieldUnknownTo01(message);
  if (field.empty()) return;
  absl::MutexLock lock(&rpc_->unknown_mu);
  rpc_->unknown_fields[message.id()] = std::move(field);
}

std::string AttendStream::UnknownFieldOf(std::int64_t id) {
  absl::MutexLock lock(&rpc_->unknown_mu);
  const auto found = rpc_->unknown_fields.find(id);
  return found == rpc_->unknown_fields.end() ? "" : found->second;
}

void AttendStream::CheckUnderstood(StreamResult& result) {
  if (HasReceipt(result)) {
    if (rpc_->has_receipt.exchange(true)) return;
    absl::MutexLock lock(&rpc_->unknown_mu);
    rpc_->unknown_fields.clear();
    return;
  }
  const std::string field = UnknownFieldOf(result.id);
  if (field.empty()) return;
  const absl::Status status = result.sdpa_response.ok() ? absl::OkStatus() : result.response.status();
  const absl::Time deadline = absl::FromChrono(rpc_->context.deadline());
  result.response = internal::WithoutReceipt(*rpc_->stub, deadline, field, status);
  result.sdpa_response = result.response.status();
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
  Sender sender(**stream);
  if (absl::Status started = sender.Start(requests); !started.ok()) return started;
  while (std::optional<StreamResult> result = (*stream)->Receive()) {
    const auto i = static_cast<std::size_t>(result->id);
    if (i < requests.size()) on_result(i, *std::move(result));
  }
  const absl::Status sent = sender.Join();
  for (const auto& [i, why] : sender.too_large()) {
    on_result(i, {.id = static_cast<std::int64_t>(i), .response = why, .sdpa_response = why, .server_timing = {}});
  }
  absl::Status ended = (*stream)->Finish();
  return sent.ok() ? ended : sent;
}

}  // namespace attend::client
