#include "server/rpc/call.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/rpc/admission.h"
#include "server/rpc/call_credentials.h"
#include "server/rpc/call_engine.h"
#include "server/rpc/known_peers.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// How long a caller should stay away from a server that stops: by then its name resolves to others.
constexpr char kDrainingRetryMs[] = "1000";

// A call with no more entries of metadata is not looked at: what they take is what they take on the wire.
constexpr std::size_t kOrdinaryEntries = 64;
// What an entry counts beside its name and value.
constexpr std::int64_t kEntryBytes = 32;

// Nobody waits until then, whether gRPC's clock counts these seconds from 1970 or from the machine's start: to 2096, or
// 126 years.
constexpr std::int64_t kLongestDeadline = 4'000'000'000;

// Done once for each call. gRPC's own conversion looks at two clocks; its deadlines are counted on the monotonic one,
// which is Clock's, so that `now` spares a look at that.
std::chrono::system_clock::time_point DeadlineOf(const grpc::ServerContext& context, Clock::time_point now) {
  const gpr_timespec deadline = context.raw_deadline();
  // gRPC 1.51 counts nanoseconds, and what they do not hold becomes a time in the past.
  if (deadline.tv_sec > kLongestDeadline) return std::chrono::system_clock::time_point::max();
  if (deadline.clock_type != GPR_CLOCK_MONOTONIC || deadline.tv_sec < 0) return context.deadline();
  const auto since_start = std::chrono::seconds(deadline.tv_sec) + std::chrono::nanoseconds(deadline.tv_nsec);
  return std::chrono::system_clock::now() + (since_start - now.time_since_epoch());
}

absl::Status TooMuchMetadata(std::int64_t limit) {
  return LimitExceeded("--max-metadata-bytes", absl::StrCat("the call's metadata are more than the ", limit,
                                                            " bytes that this server takes (--max-metadata-bytes)"));
}

// What gRPC's own libraries look at before they retry by themselves; they know nothing of google.rpc.RetryInfo.
void AddRetryPushback(const absl::Status& status, grpc::ServerContext& context) {
  for (const auto& [key, value] : GetErrorDetails(status).metadata) {
    if (key == kRetryDelayKey) context.AddTrailingMetadata(kRetryPushbackKey, value);
  }
}

}  // namespace

absl::Status DrainingStatus() {
  return WithDetails(absl::UnavailableError("this server is stopping; try another one"),
                     {.reason = reason::kDraining, .field = "", .metadata = {{kRetryDelayKey, kDrainingRetryMs}}});
}

void CallHandler::OnDrain(Call& call) { call.Finish(DrainingStatus()); }

void CallHandler::OnGivenUp(Call& call, const absl::Status& status) { call.Finish(status); }

Call* CallList::After(const Call& call) { return call.listed_after_; }

void CallList::Append(Call& call) {
  call.listed_before_ = last_;
  call.listed_after_ = nullptr;
  (last_ == nullptr ? first_ : last_->listed_after_) = &call;
  last_ = &call;
}

void CallList::Remove(Call& call) {
  (call.listed_before_ == nullptr ? first_ : call.listed_before_->listed_after_) = call.listed_after_;
  (call.listed_after_ == nullptr ? last_ : call.listed_after_->listed_before_) = call.listed_before_;
  call.listed_before_ = call.listed_after_ = nullptr;
}

void Call::BeginSend(std::size_t bytes, Clock::time_point now) {
  sending_bytes_.store(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
  sending_since_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

void Call::GiveUp(const absl::Status& status) {
  if (handler_ != nullptr && !finished() && !cancelled()) handler_->OnGivenUp(*this, status);
}

void Call::Read() {
  Ref();
  stream_.Read(&read_buffer_, &read_tag_);
}

void Call::Write(const grpc::ByteBuffer& message, bool more_follow) {
  // The first message travels with the initial metadata, and gRPC 1.51 does not call it written before that has left:
  // held back, it would wait for ever.
  more_follow = more_follow && response_bytes_ > 0;
  const std::size_t bytes = message.Length();
  response_bytes_ += static_cast<std::int64_t>(bytes);
  TellStreamMessage(/*received=*/false, bytes);
  writing_ = true;
  BeginSend(bytes, Clock::now());
  Ref();
  grpc::WriteOptions options;
  if (more_follow) options.set_buffer_hint();
  stream_.Write(message, options, &write_tag_);
}

void Call::TellStreamMessage(bool received, std::size_t bytes) const {
  if (is_stream_ && engine_.options_.on_stream_message) engine_.options_.on_stream_message(*this, received, bytes);
}

bool Call::BeginFinish() { return !finished_.exchange(true, std::memory_order_acq_rel); }

void Call::Finish(const absl::Status& status) {
  if (!BeginFinish()) return;
  if (writing_) {
    status_after_write_ = status;  // gRPC wants no two operations that send at a time.
  } else {
    SendStatus(status);
  }
}

void Call::SendStatus(const absl::Status& status) {
  context_.AddTrailingMetadata(kServerTimingKey, FormatServerTiming(timing_));
  if (!status.ok()) AddRetryPushback(status, context_);
  if (engine_.options_.on_finished) engine_.options_.on_finished(*this, status);
  BeginSend(/*bytes=*/0, Clock::now());
  Ref();
  stream_.Finish(ToGrpcStatus(status), &finish_tag_);
}

void Call::FinishWithResponse(const grpc::ByteBuffer& response, Clock::time_point now) {
  if (!BeginFinish()) return;
  const std::size_t bytes = response.Length();
  response_bytes_ = static_cast<std::int64_t>(bytes);
  TellStreamMessage(/*received=*/false, bytes);
  context_.AddTrailingMetadata(kServerTimingKey, FormatServerTiming(timing_));
  if (engine_.options_.on_finished) engine_.options_.on_finished(*this, absl::OkStatus());
  BeginSend(bytes, now);
  Ref();
  stream_.WriteAndFinish(response, grpc::WriteOptions(), grpc::Status::OK, &finish_tag_);
}

void Call::Wake() {
  if (wake_pending_.exchange(true, std::memory_order_acq_rel)) return;
  Ref();
  // An alarm that rings at once is gRPC's way to put an event of one's own on a completion queue.
  wake_alarm_ = std::make_unique<grpc::Alarm>();
  wake_alarm_->Set(&poller_.queue(), gpr_now(GPR_CLOCK_MONOTONIC), &wake_tag_);
}

void Call::WakeWhenIdle() { poller_.WakeWhenIdle(*this); }

absl::Status Call::MissingRequestStatus() const {
  return cancelled() ? CancelledStatus()
                     : absl::UnimplementedError("the call ended without the one request message it must have");
}

std::string_view Call::Metadata(const char* name) const {
  const auto& metadata = context_.client_metadata();
  const auto found = metadata.find(name);
  return found == metadata.end() ? std::string_view() : std::string_view(found->second.data(), found->second.size());
}

void Call::Delete() {
  CallEngine& engine = engine_;
  delete this;
  engine.CallDeleted();
}

void Call::Handle(Operation operation, bool ok) {
  switch (operation) {
    case Operation::kRequest:
      if (ok) HandleArrival();
      if (ok) engine_.Arm(poller_);  // After this call's own first step, which its caller waits for.
      break;
    case Operation::kDone:
      if (!arrived_) {
        done_ = true;  // HandleArrival sees to it.
        return;
      }
      HandleDone();
      break;
    case Operation::kRead: HandleRead(ok); break;
    case Operation::kWrite: HandleWritten(ok); break;
    case Operation::kFinish: EndSend(); break;
    case Operation::kWake: HandleWake(); break;
  }
  Unref();
}

void Call::HandleArrival() {
  Ref();  // The done notification, which comes for every call that arrived.
  HandleRequest();
  arrived_ = true;
  if (!done_) return;
  HandleDone();
  Unref();
}

void Call::HandleRequest() {
  arrival_ = Clock::now();
  deadline_ = DeadlineOf(context_, arrival_);
  const MethodEntry* method = engine_.methods_.Find(context_.method());
  if (method != nullptr) {
    method_id_ = method->id;
    is_stream_ = method->is_stream;
    gives_way_ = method->gives_way;
  }
  if (engine_.options_.on_started) engine_.options_.on_started(*this);
  has_too_much_metadata_ = HasTooMuchMetadata();
  if (engine_.handed_calls_.counting() && !has_too_much_metadata_) {
    engine_.handed_calls_.AddCall(context_.peer(), /*is_receiving=*/true);
  }
  // Counted before the question, so that Drain either sees the call or is seen by it.
  engine_.in_flight_.fetch_add(1);
  accepted_ = !engine_.draining();
  if (!accepted_) {
    engine_.in_flight_.fetch_sub(1);
    return Finish(DrainingStatus());
  }
  if (absl::Status room = poller_.watch().Add(*this, engine_.in_flight_.load(), made_room_); !room.ok()) {
    return Finish(room);
  }
  if (has_too_much_metadata_) {
    if (engine_.guard_ != nullptr) engine_.guard_->OnTooMuchMetadata(context_.peer());
    context_.TryCancel();  // A status would wait for a peer that perhaps does not read.
    return Finish(TooMuchMetadata(engine_.options_.max_metadata_bytes));
  }
  if (method == nullptr) {
    return Finish(WithDetails(absl::UnimplementedError(absl::StrCat("this server has no method ", context_.method(),
                                                                    "; ask its reflection service for those it has")),
                              {.reason = reason::kUnknownMethod, .field = "", .metadata = {}}));
  }
  if (absl::Status allowed = CheckMethodCaller(*method); !allowed.ok()) return Finish(allowed);
  handler_ = method->make_handler();
  if (is_stream_) engine_.RegisterStream(*this);
  handler_->OnStart(*this);
}

void Call::NoteEnd() const {
  if (engine_.guard_ != nullptr && MayReceive()) engine_.handed_calls_.NoteEnded(context_.peer(), Clock::now());
}

bool Call::HasTooMuchMetadata() const {
  const auto& metadata = context_.client_metadata();
  if (metadata.size() <= kOrdinaryEntries || engine_.options_.max_metadata_bytes == 0) return false;
  std::int64_t bytes = 0;
  for (const auto& [key, value] : metadata) bytes += static_cast<std::int64_t>(key.size() + value.size()) + kEntryBytes;
  return bytes > engine_.options_.max_metadata_bytes;
}

absl::Status Call::CheckMethodCaller(const MethodEntry& method) {
  const CallEngine::Options& options = engine_.options_;
  if (options.authenticator == nullptr || method.roles.empty()) return absl::OkStatus();
  absl::Status status = FindCaller(*options.authenticator, method.roles);
  if (!status.ok() && options.on_denied) options.on_denied(*this, status);
  return status;
}

absl::Status Call::FindCaller(Authenticator& authenticator, Roles needed) {
  const CallEngine::Options& options = engine_.options_;
  const bool shows_peer_alone = !options.mutual_tls && options.proxies.empty() && !ShowsToken(context_);
  if (!shows_peer_alone) {
    return CheckCaller(authenticator, CredentialsOf(context_, options.mutual_tls, options.proxies), needed);
  }
  std::string peer = context_.peer();
  if (const KnownPeer* const known = poller_.known_peers().Find(peer); known != nullptr) {
    principal_ = known->principal;
    absl::Status status = Authenticator::Authorize(*principal_, needed);
    if (status.ok()) account_ = known->account;
    return status;
  }
  absl::Status status = CheckCaller(authenticator, CredentialsOfPeer(peer), needed);
  if (status.ok()) {
    poller_.known_peers().Add({.peer = std::move(peer), .principal = principal_, .account = account_});
  }
  return status;
}

void Call::CountMessage(bool is_first) {
  // A stream's next message may be on its way; questions to health and reflection are too small to count.
  const bool is_last = is_first && !MayReceive();
  engine_.handed_calls_.AddMessage(context_.peer(), static_cast<std::int64_t>(read_buffer_.Length()), is_last);
}

void Call::HandleRead(bool ok) {
  const bool is_first = !got_message_;
  if (is_first && list_ != nullptr) poller_.watch().GotMessage(*this);
  got_message_ = true;
  has_message_ = has_message_ || ok;
  if (ok && engine_.handed_calls_.counting()) CountMessage(is_first);
  // What comes for a call that has ended is not looked at.
  if (ok && !finished()) {
    const std::size_t bytes = read_buffer_.Length();
    request_bytes_ += static_cast<std::int64_t>(bytes);
    TellStreamMessage(/*received=*/true, bytes);
    handler_->OnRead(*this, &read_buffer_);
  } else {
    handler_->OnRead(*this, nullptr);
  }
}

void Call::HandleWritten(bool ok) {
  writing_ = false;
  EndSend();
  if (status_after_write_.has_value()) {
    SendStatus(*status_after_write_);
  } else {
    handler_->OnWritten(*this, ok);
  }
}

void Call::HandleDone() {
  if (accepted_) engine_.in_flight_.fetch_sub(1);
  if (list_ != nullptr) poller_.watch().Remove(*this);
  NoteEnd();
  if (is_stream_) engine_.UnregisterStream(*this);
  if (!context_.IsCancelled()) return;
  cancelled_.store(true, std::memory_order_release);
  if (handler_ != nullptr) handler_->OnCancelled(*this);
}

void Call::HandleIdle() {
  if (!finished() && !cancelled()) handler_->OnIdle(*this);
}

void Call::HandleWake() {
  // An exchange, not a store: a Wake that was left out because this one was pending is then seen with all before it.
  wake_pending_.exchange(false, std::memory_order_acq_rel);
  if (finished() || cancelled()) return;
  if (engine_.draining()) {
    handler_->OnDrain(*this);
  } else {
    handler_->OnWake(*this);
  }
}

}  // namespace attend::server
