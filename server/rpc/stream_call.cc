#include "server/rpc/request_run.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "core/base/mutex.h"
#include "server/rpc/status.h"
#include "server/wire/stream_messages.h"

namespace attend::server {
namespace {

// Half of what gRPC's transport buffers of a stream; what does not fit there is not called written before it is sent.
constexpr std::size_t kMaxHeldBackBytes = 32 << 10;

class StreamCall;

// One request of a stream, from its message's arrival until its response is written.
class StreamItem final : public RequestRun::Owner {
 public:
  StreamItem(StreamCall& stream, Call& call, std::int64_t id) : stream_(stream), call_(call), id_(id) {}

  // Does all that can be done on this thread. REQUIRES: polling thread; called once.
  void Start(StreamRequest& request, Clock::time_point arrival);

  void OnResponse(const grpc::ByteBuffer& response, Clock::time_point now) override;
  void OnError(const absl::Status& status) override;

  // REQUIRES: finished.
  const grpc::ByteBuffer& message() const { return message_; }
  const CallTiming& timing() const { return timing_; }

  std::list<StreamItem>::iterator position;  // Where the stream keeps it.

 private:
  StreamCall& stream_;
  Call& call_;
  const std::int64_t id_;
  RequestKind kind_ = RequestKind::kAttend;
  CallTiming timing_;
  std::optional<RequestRun> run_;
  grpc::ByteBuffer message_;
};

class StreamCall final : public CallHandler {
 public:
  StreamCall(const RequestServices& services, const StreamMethods& methods) : services_(services), methods_(methods) {}

  void OnStart(Call& call) override;
  void OnRead(Call& call, grpc::ByteBuffer* message) override;
  void OnWritten(Call& call, bool ok) override;
  void OnWake(Call& call) override;
  void OnIdle(Call& call) override;
  void OnCancelled(Call& call) override;
  void OnDrain(Call& call) override;

  const RequestServices& services() const { return services_; }
  const RequestMethod& method(RequestKind kind) const {
    return kind == RequestKind::kAttend ? methods_.attend : methods_.scaled_dot_product_attention;
  }

  // Told by the item, on whichever thread it ends.
  void OnFinished(Call& call, StreamItem& item) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void StartItem(Call& call, grpc::ByteBuffer& message);
  // Reads no further, and ends the call with `status` once every request is answered. The first of several counts.
  void EndAfterResponses(const absl::Status& status);
  // Starts whatever can be started now: a read, a write, the end.
  void Advance(Call& call);
  bool MayRead() const;
  // Writes the first response of the outbox, unless it is the last and others may come in a moment.
  void MayWrite(Call& call);
  void Write(Call& call);
  void CollectFinished() ABSL_LOCKS_EXCLUDED(mu_);
  void MoveToOutbox(StreamItem& item) { outbox_.splice(outbox_.end(), running_, item.position); }

  const RequestServices& services_;
  const StreamMethods& methods_;

  // All touched in callbacks alone, but for `finished_` and this: the thread that starts an item, after which the
  // stream is looked at; else none.
  std::atomic<std::thread::id> starting_;
  std::list<StreamItem> running_;
  std::list<StreamItem> outbox_;  // Finished; the first is being written while `writing_`.
  bool reading_ = false;
  bool writing_ = false;
  bool waits_for_idle_ = false;
  std::size_t held_back_bytes_ = 0;  // Written, but perhaps still waiting for others to travel with.
  std::optional<absl::Status> end_;

  Mutex mu_;
  std::vector<StreamItem*> finished_ ABSL_GUARDED_BY(mu_);  // Of running_.
};

void StreamItem::Start(StreamRequest& request, Clock::time_point arrival) {
  const absl::StatusOr<absl::Duration> timeout = CheckTimeout(request.timeout);
  if (!timeout.ok()) return OnError(timeout.status());
  if (!request.request) return OnError(MissingRequest());
  kind_ = request.request->kind;
  std::chrono::system_clock::time_point deadline = call_.deadline();
  if (*timeout != absl::InfiniteDuration()) {
    deadline = std::min(deadline, absl::ToChronoTime(absl::Now() + *timeout));
  }
  timing_.receive = Clock::now() - arrival;
  run_.emplace(stream_.services(), stream_.method(kind_), call_, *this, timing_);
  run_->Start(request.request->bytes, deadline);
}

void StreamItem::OnResponse(const grpc::ByteBuffer& response, Clock::time_point /*now*/) {
  message_ = StreamResponse(id_, FormatServerTiming(timing_), kind_, response);
  if (stream_.services().on_stream_answer) stream_.services().on_stream_answer(absl::OkStatus());
  stream_.OnFinished(call_, *this);
}

void StreamItem::OnError(const absl::Status& status) {
  message_ = StreamError(id_, FormatServerTiming(timing_), ToRpcStatus(status));
  if (stream_.services().on_stream_answer) stream_.services().on_stream_answer(status);
  stream_.OnFinished(call_, *this);
}

void StreamCall::OnStart(Call& call) { Advance(call); }

void StreamCall::OnRead(Call& call, grpc::ByteBuffer* message) {
  reading_ = false;
  if (call.finished()) return;
  if (message == nullptr) {
    if (call.cancelled()) return call.Finish(call.CancelledStatus());
    EndAfterResponses(absl::OkStatus());
  } else if (!end_) {
    StartItem(call, *message);
  }
  Advance(call);
}

void StreamCall::StartItem(Call& call, grpc::ByteBuffer& message) {
  const Clock::time_point arrival = Clock::now();
  StreamRequest request;
  absl::Status read = ReadStreamRequest(message, request);
  message.Clear();
  if (!read.ok()) return EndAfterResponses(read);
  StreamItem& item = running_.emplace_back(*this, call, request.id);
  item.position = std::prev(running_.end());
  starting_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  item.Start(request, arrival);
  starting_.store({}, std::memory_order_relaxed);
}

void StreamCall::OnFinished(Call& call, StreamItem& item) {
  if (starting_.load(std::memory_order_relaxed) == std::this_thread::get_id()) return MoveToOutbox(item);
  // On a compute thread, or on a polling thread where another call has taken the item's place in the queue.
  {
    const MutexLock lock(mu_);
    finished_.push_back(&item);
  }
  call.Wake();
}

void StreamCall::CollectFinished() {
  std::vector<StreamItem*> finished;
  {
    const MutexLock lock(mu_);
    finished.swap(finished_);
  }
  for (StreamItem* item : finished) MoveToOutbox(*item);
}

void StreamCall::OnWritten(Call& call, bool /*ok*/) {
  writing_ = false;
  outbox_.pop_front();
  Advance(call);
}

void StreamCall::OnWake(Call& call) {
  CollectFinished();
  Advance(call);
}

void StreamCall::OnIdle(Call& call) {
  waits_for_idle_ = false;
  if (!writing_ && !outbox_.empty()) Write(call);
}

void StreamCall::OnDrain(Call& call) {
  EndAfterResponses(DrainingStatus());
  OnWake(call);
}

void StreamCall::OnCancelled(Call& call) {
  // What is being written stays, because OnWritten will ask for it.
  outbox_.erase(writing_ ? std::next(outbox_.begin()) : outbox_.begin(), outbox_.end());
  call.Finish(call.CancelledStatus());
}

void StreamCall::EndAfterResponses(const absl::Status& status) {
  if (!end_) end_ = status;
}

bool StreamCall::MayRead() const {
  const std::size_t in_flight = running_.size() + outbox_.size();
  if (in_flight == 0) return true;
  return in_flight < static_cast<std::size_t>(services_.limits.max_stream_requests_in_flight) &&
         services_.memory->in_use_bytes() <= services_.memory->limit_bytes() / 2;
}

void StreamCall::Advance(Call& call) {
  if (call.finished()) return;
  if (!end_ && !reading_ && MayRead()) {
    reading_ = true;
    call.Read();
  }
  if (!writing_ && !outbox_.empty()) MayWrite(call);
  if (end_ && running_.empty() && outbox_.empty()) call.Finish(*end_);
}

void StreamCall::MayWrite(Call& call) {
  if (outbox_.size() > 1 || !reading_) return Write(call);
  // Requests arrive several at a time, and each response that is written without another behind it costs a system call.
  if (!waits_for_idle_) call.WakeWhenIdle();
  waits_for_idle_ = true;
}

void StreamCall::Write(Call& call) {
  const StreamItem& item = outbox_.front();
  held_back_bytes_ += item.message().Length();
  const bool more_follow = outbox_.size() > 1 && held_back_bytes_ <= kMaxHeldBackBytes;
  if (!more_follow) held_back_bytes_ = 0;
  writing_ = true;
  AddTiming(item.timing(), call.timing());
  call.Write(item.message(), more_follow);
}

}  // namespace

MethodEntry MakeStreamMethod(const RequestServices& services, StreamMethods methods) {
  auto shared = std::make_shared<const StreamMethods>(std::move(methods));
  return {.make_handler = [&services, shared] { return std::make_unique<StreamCall>(services, *shared); },
          .is_stream = true};
}

}  // namespace attend::server
