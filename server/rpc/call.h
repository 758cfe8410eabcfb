// One call of any kind (unary or streaming) on gRPC's generic asynchronous API.
//
// A Call is armed before it exists: CallEngine::Arm asks gRPC for the next call that arrives. Its metadata comes first;
// the payload is read only when the handler asks for it, so that a call can be refused before anything is buffered.
//
// Threads. All callbacks of one call's handler run on the threads of the poller that owns the call, one after the
// other, so that a handler needs no lock; they must not block. OnGivenUp may run on another poller's thread, with the
// owner's lock held. "REQUIRES: polling thread" below means: within such a callback. Finish, Wake and the accessors may
// be called from any thread that holds a CallRef.
//
// Lifetime. Every operation under way and every CallRef counts; the last one to go deletes the call and its handler.
#ifndef ATTEND_SERVER_RPC_CALL_H_
#define ATTEND_SERVER_RPC_CALL_H_

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/async_generic_service.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "core/tensor/aligned_buffer.h"
#include "server/identity/principal.h"
#include "server/rpc/inbound_call.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class Call;
class CallEngine;
class Poller;
struct MethodEntry;
struct RequestMethod;

// How a server that stops refuses what it has not begun: UNAVAILABLE, reason DRAINING, with a retry delay.
absl::Status DrainingStatus();

// What a method does with its calls; one object per call, owned by it.
class CallHandler {
 public:
  virtual ~CallHandler() = default;

  // The call has arrived, its metadata alone.
  virtual void OnStart(Call& call) = 0;
  // The answer to Call::Read: a message, which may be moved from, or null when there is none (half-closed or gone).
  virtual void OnRead(Call& call, grpc::ByteBuffer* message) = 0;
  // The answer to Call::Write; not ok: the caller is gone.
  virtual void OnWritten(Call& /*call*/, bool /*ok*/) {}
  // Asked for by Call::WakeWhenIdle: the polling thread has nothing else to do at the moment, or has not had such a
  // moment for some time.
  virtual void OnIdle(Call& /*call*/) {}
  // Someone called Call::Wake; several wakes may arrive as one.
  virtual void OnWake(Call& /*call*/) {}
  // The caller cancelled, went away, or its deadline passed; Call::cancelled() is already set. Called at most once.
  virtual void OnCancelled(Call& /*call*/) {}
  // Streaming calls only: the server stops. Ends the call now unless overridden.
  virtual void OnDrain(Call& call);
  // The call's first message has not come in time, or others need its place. Ends the call now with `status` unless
  // overridden; an override ends it too, and gives back what it holds.
  virtual void OnGivenUp(Call& call, const absl::Status& status);
};

// Calls in the order in which they were appended; a call is in one list at most. Thread-compatible.
class CallList {
 public:
  Call* first() const { return first_; }
  static Call* After(const Call& call);
  void Append(Call& call);
  void Remove(Call& call);

 private:
  Call* first_ = nullptr;
  Call* last_ = nullptr;
};

class Call final : public InboundCall {
 public:
  Call(CallEngine& engine, Poller& poller) : engine_(engine), poller_(poller) {}
  ~Call() override = default;
  // One comes and goes with each call: 3 KiB, which malloc does not keep for the next.
  static void* operator new(std::size_t size) { return AllocateAligned(size); }
  static void operator delete(void* memory, std::size_t size) { FreeAligned(memory, size); }

  // Reads the next message. REQUIRES: polling thread; no read under way.
  void Read();
  // Writes one message of a stream. REQUIRES: polling thread; no write under way; not finished.
  // `more_follow`: another will be written as soon as this one is, so that both may travel together.
  void Write(const grpc::ByteBuffer& message, bool more_follow = false);
  // Ends the call with a status and, for a unary call that went well, its one response. Only the first of several has
  // an effect. While a write is under way the end waits for it. `now`: what the clock has just said. Any thread, but
  // for streams the polling thread.
  void Finish(const absl::Status& status);
  void FinishWithResponse(const grpc::ByteBuffer& response, Clock::time_point now = Clock::now());
  // Has the handler's OnIdle called once. REQUIRES: polling thread.
  void WakeWhenIdle();
  // Has the handler's OnWake called on the polling thread. Any thread.
  void Wake();

  bool finished() const { return finished_.load(std::memory_order_acquire); }
  // Why a call that must have one request message cannot go on without it.
  absl::Status MissingRequestStatus() const;

  // gRPC watches the deadline, and cancels the call when it passes.
  std::chrono::system_clock::time_point deadline() const override { return deadline_; }
  const std::string& method() const override { return context_.method(); }
  std::string peer() const override { return context_.peer(); }
  std::string_view Metadata(const char* name) const override;

 private:
  friend class CallEngine;
  friend class CallList;
  friend class CallWatch;
  friend class Poller;
  template <typename T>
  friend class RefTo;

  enum class Operation : std::uint8_t { kRequest, kDone, kRead, kWrite, kFinish, kWake };

  // What travels through the completion queue.
  struct Tag {
    Call* call;
    Operation operation;
  };

  void Delete() override;
  // Takes one event off the completion queue; may delete the call.
  void Handle(Operation operation, bool ok);
  void HandleArrival();
  void HandleRequest();
  void HandleRead(bool ok);
  void HandleWritten(bool ok);
  void HandleDone();
  void HandleWake();
  void HandleIdle();
  void GiveUp(const absl::Status& status);
  // Whether a message that it will be handed may be on its way.
  bool MayReceive() const { return !has_too_much_metadata_ && (!has_message_ || (is_stream_ && !gives_way_)); }
  void CountMessage(bool is_first);
  void NoteEnd() const;
  // Whether its metadata are beyond what this server takes. gRPC 1.51 holds a peer to that once it has acknowledged the
  // server's SETTINGS; one that never does may name a large entry of the HPACK table thousands of times.
  bool HasTooMuchMetadata() const;
  void BeginSend(std::size_t bytes, Clock::time_point now);
  void TellStreamMessage(bool received, std::size_t bytes) const;
  void EndSend() { sending_since_.store(0, std::memory_order_relaxed); }
  // Finds out who calls. Errors: UNAUTHENTICATED, PERMISSION_DENIED.
  absl::Status CheckMethodCaller(const MethodEntry& method);
  absl::Status FindCaller(Authenticator& authenticator, Roles needed);
  // True for the one caller that ends the call.
  bool BeginFinish();
  void SendStatus(const absl::Status& status);

  CallEngine& engine_;
  Poller& poller_;
  grpc::GenericServerContext context_;
  std::chrono::system_clock::time_point deadline_;  // From the arrival on.
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  std::unique_ptr<CallHandler> handler_;
  bool arrived_ = false;   // Its metadata were looked at,
  bool done_ = false;      // before which its end may have been, on another of the poller's threads.
  bool accepted_ = false;  // Arrived before the drain.
  bool has_too_much_metadata_ = false;

  Tag request_tag_{this, Operation::kRequest};
  Tag done_tag_{this, Operation::kDone};
  Tag read_tag_{this, Operation::kRead};
  Tag write_tag_{this, Operation::kWrite};
  Tag finish_tag_{this, Operation::kFinish};
  Tag wake_tag_{this, Operation::kWake};

  // For CallWatch, on the polling thread.
  Call* listed_before_ = nullptr;
  Call* listed_after_ = nullptr;
  CallList* list_ = nullptr;  // The one of its lists that the call is in.
  bool gives_way_ = false;    // MethodEntry::gives_way.
  bool got_message_ = false;  // Or will get none.
  bool has_message_ = false;  // One came whole.
  bool given_up_ = false;
  bool made_room_ = false;  // Another call has ended for this one, before it was handled.
  // When the operation that sends was begun, as a count of Clock's; 0 when there is none.
  std::atomic<Clock::rep> sending_since_{0};
  std::atomic<std::int64_t> sending_bytes_{0};

  bool writing_ = false;
  std::optional<absl::Status> status_after_write_;  // A Finish that waits for a write.

  std::atomic<bool> finished_{false};
  std::atomic<bool> wake_pending_{false};
  std::unique_ptr<grpc::Alarm> wake_alarm_;  // Touched only by whoever set wake_pending_.

  grpc::ByteBuffer read_buffer_;
};

// For whoever keeps a call beyond a callback.
using CallRef = RefTo<Call>;

// The method table: the one list of everything that the server answers. It is filled before the server starts and never
// changed after, so that it may be read concurrently.

struct MethodEntry {
  // Makes the handler of one call. Called on polling threads, concurrently.
  std::function<std::unique_ptr<CallHandler>()> make_handler;
  // Whether a call may outlive a request and its answer, so that it has to be told when the server stops.
  bool is_stream = false;
  // Its place in MethodTable::Paths; set by the table.
  int id = -1;
  // The caller needs one of these roles; none: anybody may call, with whatever credential.
  Roles roles = Roles::Compute();
  // A stream that serves nobody's work (health's Watch, reflection): when there are too many calls, the oldest of these
  // ends for a new one.
  bool gives_way = false;
  // What answers a unary method's requests, for transports beside gRPC; null for methods that are more than that.
  std::shared_ptr<const RequestMethod> request_method = nullptr;
};

class MethodTable {
 public:
  // `path` is the full path, for example `/attend.v1.AttentionService/Attend`. The last of two with one path wins.
  void Add(std::string_view path, MethodEntry entry) {
    const auto [method, added] = methods_.try_emplace(std::string(path));
    if (added) paths_.push_back(method->first);
    entry.id = added ? static_cast<int>(paths_.size()) - 1 : method->second.id;
    method->second = std::move(entry);
  }
  // For callers who have one of `roles`.
  void Add(std::string_view path, MethodEntry entry, Roles roles) {
    entry.roles = roles;
    Add(path, std::move(entry));
  }

  // Null when there is no such method.
  const MethodEntry* Find(const std::string& path) const {
    const auto found = methods_.find(path);
    return found == methods_.end() ? nullptr : &found->second;
  }

  // In the order in which they were added.
  const std::vector<std::string>& Paths() const { return paths_; }

 private:
  absl::flat_hash_map<std::string, MethodEntry> methods_;
  std::vector<std::string> paths_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CALL_H_
