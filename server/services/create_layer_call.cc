#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "core/base/mutex.h"
#include "server/base/protocol.h"
#include "server/layer_store/layer_upload.h"
#include "server/rpc/status.h"
#include "server/rpc/trace_context.h"
#include "server/services/attend_services.h"
#include "server/services/control_method.h"
#include "server/wire/stream_messages.h"
#include "server/wire/wire_format.h"

namespace attend::server {
namespace {

// Messages are read ahead of the writing thread up to so many bytes: enough that neither waits for the other.
constexpr std::int64_t kReadAheadBytes = std::int64_t{4} << 20;

// What a message takes beside its bytes, so that empty ones do not pile up without bound.
constexpr std::int64_t kMessageBytes = 256;

std::int64_t BytesOf(const grpc::ByteBuffer& message) {
  return static_cast<std::int64_t>(message.Length()) + kMessageBytes;
}

class CreateLayerCall final : public CallHandler {
 public:
  explicit CreateLayerCall(const UploadServices& services) : services_(services) {}

  void OnStart(Call& call) override;
  void OnRead(Call& call, grpc::ByteBuffer* message) override;
  void OnWake(Call& call) override;
  void OnCancelled(Call& call) override;
  void OnDrain(Call& call) override;
  void OnGivenUp(Call& call, const absl::Status& status) override { EndEarly(call, status); }

 private:
  // Polling thread.
  absl::Status Push(Call& call, grpc::ByteBuffer& message);
  void ReadOn(Call& call);
  // Has an upload thread work on what waits, unless one does.
  void Schedule(Call& call) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the call, unless the layer is being made: then the thread that does it looks whether it is still wanted.
  // Either way an upload thread removes what was written.
  void EndEarly(Call& call, const absl::Status& status);

  // Upload threads, one at a time.
  void Work(Call& call);
  // A message or, when none is left, whether the caller has sent everything. False when there is nothing to do: then
  // the next event schedules again.
  bool Pop(const Call& call, grpc::ByteBuffer& message, bool& complete) ABSL_LOCKS_EXCLUDED(mu_);
  // Queues this call's work behind that of others.
  bool Submit(Call& call);
  absl::Status Consume(const Call& call, const grpc::ByteBuffer& message);
  void Written(Call& call, std::int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  void Complete(Call& call);
  void ReleaseSlot(Call& call);
  // The end of work, and of the call if it has not ended yet.
  void End(Call& call, const absl::Status& status);

  const UploadServices& services_;
  bool has_begun_ = false;  // It got a slot, which it may have lost since.

  Mutex mu_;
  std::deque<grpc::ByteBuffer> waiting_ ABSL_GUARDED_BY(mu_);
  std::int64_t waiting_bytes_ ABSL_GUARDED_BY(mu_) = 0;    // Those being written included.
  std::int64_t payload_bytes_ ABSL_GUARDED_BY(mu_) = 0;    // Written, where layers are not kept on a disk.
  MemoryBudget::Reservation memory_ ABSL_GUARDED_BY(mu_);  // Of both.
  bool working_ ABSL_GUARDED_BY(mu_) = false;
  bool complete_ ABSL_GUARDED_BY(mu_) = false;  // The caller has sent everything.
  bool paused_ ABSL_GUARDED_BY(mu_) = false;    // No read is under way.

  std::optional<LayerUpload> upload_;  // The working thread's.
};

void CreateLayerCall::OnStart(Call& call) {
  if (absl::Status admitted = services_.slots->Acquire(call); !admitted.ok()) return call.Finish(admitted);
  has_begun_ = true;
  {
    const MutexLock lock(mu_);
    memory_ = *services_.memory->Reserve(0, call.account(), MemoryBudget::User::kUploads);  // Nothing never fails.
  }
  call.Read();
}

void CreateLayerCall::OnRead(Call& call, grpc::ByteBuffer* message) {
  if (call.finished()) return;
  if (message == nullptr) {
    // Either the end of the stream or that of the caller. In the second case OnCancelled comes too, perhaps later; then
    // the file's own header says that bytes are missing.
    services_.slots->Pin(call);
    const MutexLock lock(mu_);
    complete_ = true;
  } else {
    if (absl::Status pushed = Push(call, *message); !pushed.ok()) return EndEarly(call, pushed);
    ReadOn(call);
  }
  Schedule(call);
}

absl::Status CreateLayerCall::Push(Call& call, grpc::ByteBuffer& message) {
  const auto bytes = static_cast<std::int64_t>(message.Length());
  if (bytes > services_.max_request_bytes) {
    return LimitExceeded("--max-request-bytes",
                         absl::StrCat("a message of the upload has ", bytes, " bytes; this server accepts at most ",
                                      services_.max_request_bytes, " (--max-request-bytes): send smaller chunks"));
  }
  services_.slots->Touch(call, bytes);
  const MutexLock lock(mu_);
  const auto memory = static_cast<double>(payload_bytes_ + waiting_bytes_ + BytesOf(message));
  if (absl::Status enough = memory_.Resize(memory); !enough.ok()) return enough;
  waiting_bytes_ += BytesOf(message);
  waiting_.emplace_back();
  waiting_.back().Swap(&message);
  return absl::OkStatus();
}

void CreateLayerCall::ReadOn(Call& call) {
  bool was_paused = false, is_paused = false;
  {
    const MutexLock lock(mu_);
    was_paused = paused_;
    is_paused = paused_ = waiting_bytes_ >= kReadAheadBytes;
  }
  if (is_paused != was_paused) services_.slots->SetPaused(call, is_paused);
  if (!is_paused) call.Read();
}

void CreateLayerCall::OnWake(Call& call) {
  if (absl::Status lost = services_.slots->WhyLost(call); !lost.ok()) return EndEarly(call, lost);
  bool resume = false;
  {
    const MutexLock lock(mu_);
    resume = paused_ && !complete_;
  }
  if (resume) ReadOn(call);
}

void CreateLayerCall::OnCancelled(Call& call) {
  // A call that got no slot has nothing to remove, and no place for a task among those of the uploads.
  if (has_begun_) EndEarly(call, call.CancelledStatus());
}

void CreateLayerCall::OnDrain(Call& call) {
  {
    const MutexLock lock(mu_);
    if (complete_) return;  // The little that is left is done.
  }
  CallHandler::OnDrain(call);
  Schedule(call);
}

void CreateLayerCall::EndEarly(Call& call, const absl::Status& status) {
  bool complete = false;
  {
    const MutexLock lock(mu_);
    complete = complete_;
  }
  if (!complete) call.Finish(status);
  Schedule(call);
}

void CreateLayerCall::Schedule(Call& call) {
  {
    const MutexLock lock(mu_);
    if (working_) return;
    working_ = true;
  }
  // A call has one task at a time and leaves UploadSlots with the last, so that there is room for all.
  if (Submit(call)) return;
  End(call, BusyError(reason::kQueueFull, "the upload threads have too much to do", /*delay_ms=*/1000));
}

bool CreateLayerCall::Submit(Call& call) {
  return services_.executor->Submit([this, ref = CallRef(call)] { Work(*ref); });
}

void CreateLayerCall::Work(Call& call) {
  grpc::ByteBuffer message;
  bool complete = false;
  std::int64_t written = 0;
  while (!call.finished() && !call.cancelled()) {
    if (!Pop(call, message, complete)) return;
    if (call.finished() || call.cancelled()) break;  // Then Pop may have had no message.
    if (complete) return Complete(call);
    const std::int64_t bytes = BytesOf(message);
    const absl::Status consumed = Consume(call, message);
    message.Clear();
    Written(call, bytes);
    written += bytes;
    if (consumed.ok()) {
      // Whoever sends faster than the disk writes would keep the thread from others.
      if (written >= kReadAheadBytes && Submit(call)) return;
      continue;
    }
    upload_.reset();  // Before the answer: who hears of a failure finds nothing left of it.
    ReleaseSlot(call);
    call.Finish(consumed);
  }
  // It has ended, and `working_` stays, so that nobody works on it any more.
  upload_.reset();
  {
    const MutexLock lock(mu_);
    waiting_.clear();
    memory_.ShrinkTo(0);
  }
  End(call, call.CancelledStatus());
}

bool CreateLayerCall::Pop(const Call& call, grpc::ByteBuffer& message, bool& complete) {
  const MutexLock lock(mu_);
  if (!waiting_.empty()) {
    message.Swap(&waiting_.front());
    waiting_.pop_front();
    return true;
  }
  complete = complete_;
  // An end that came after Work looked has found `working_` set, and scheduled nothing.
  working_ = complete_ || call.finished() || call.cancelled();
  return working_;
}

absl::Status CreateLayerCall::Consume(const Call& call, const grpc::ByteBuffer& message) {
  const WireBytes bytes(message);
  absl::StatusOr<UploadPart> part = ReadUploadPart(bytes);
  if (!part.ok()) return part.status();
  if (part->header.has_value() && upload_.has_value()) {
    return InvalidField("header", "a second header came; an upload has one, in its first message");
  }
  if (part->header.has_value()) {
    LayerOwner owner{.tenant = call.tenant(), .account = call.account(), .trace = TraceContextOf(call)};
    if (call.account() != nullptr) owner.max_layers_bytes = call.account()->tenant->limits().max_layers_bytes;
    absl::StatusOr<LayerUpload> upload = services_.store->BeginUpload(std::move(owner), *std::move(part->header));
    if (!upload.ok()) return upload.status();
    upload_.emplace(*std::move(upload));
    return absl::OkStatus();
  }
  if (!upload_.has_value()) {
    return InvalidField("header", "the first message has no header; it must say what the upload is to become");
  }
  return part->chunk.has_value() ? upload_->Append(PiecesOf(bytes, *part->chunk)) : absl::OkStatus();
}

void CreateLayerCall::Written(Call& call, std::int64_t bytes) {
  const MutexLock lock(mu_);
  waiting_bytes_ -= bytes;
  // What was written to memory takes no more of it than the message did.
  payload_bytes_ = upload_.has_value() && !upload_->on_disk() ? upload_->payload_bytes() : 0;
  memory_.ShrinkTo(payload_bytes_ + waiting_bytes_);
  if (paused_ && waiting_bytes_ < kReadAheadBytes / 2) call.Wake();
}

void CreateLayerCall::Complete(Call& call) {
  const Clock::time_point start = Clock::now();
  call.timing().receive = start - call.arrival();
  if (!upload_.has_value()) {
    return End(call, InvalidField("header", "the stream ended without a header; its first message must have one"));
  }
  absl::StatusOr<LayerStore::Created> created =
      services_.store->FinishUpload(*upload_, call.cancelled(), *services_.executor, *services_.memory);
  upload_.reset();
  call.timing().compute = Clock::now() - start;
  if (!created.ok()) return End(call, absl::IsCancelled(created.status()) ? call.CancelledStatus() : created.status());
  v1::CreateLayerResponse response;
  *response.mutable_layer() = created->layer->description();
  created->layer.reset();  // A layer counts for as long as somebody holds it, also when it is deleted at once.
  const v1::Layer& layer = response.layer();
  if (services_.audit != nullptr) {
    services_.audit->Layer(created->replaced ? "layer replaced" : "layer created", call, layer.name(), layer.etag());
  }
  if (!created->kept.ok()) return End(call, created->kept);
  ReleaseSlot(call);  // Before the answer: who hears it may begin the next upload.
  call.FinishWithResponse(SerializeControlMessage(response));
}

void CreateLayerCall::ReleaseSlot(Call& call) { services_.slots->Release(call); }

void CreateLayerCall::End(Call& call, const absl::Status& status) {
  ReleaseSlot(call);
  call.Finish(status);
}

}  // namespace

MethodEntry MakeCreateLayerMethod(const UploadServices& services) {
  return {.make_handler = [&services] { return std::make_unique<CreateLayerCall>(services); }, .is_stream = true};
}

}  // namespace attend::server
