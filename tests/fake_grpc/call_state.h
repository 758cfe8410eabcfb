// One call of the fake gRPC: what its client and its server share.
#ifndef ATTEND_TESTS_FAKE_GRPC_CALL_STATE_H_
#define ATTEND_TESTS_FAKE_GRPC_CALL_STATE_H_

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace attend::fake_grpc {

using Trailers = std::multimap<std::string, std::string>;

// How a call ended, as its client sees it.
struct Ending {
  grpc::Status status;
  Trailers trailers;
};

// What a client says when it calls.
struct CallStart {
  std::string method;
  std::chrono::system_clock::time_point deadline = std::chrono::system_clock::time_point::max();
  std::map<std::string, std::string> metadata;
  // What the server's thread does inside AsyncNext before it gives the call's arrival, and after the call's end may
  // come.
  std::function<void()> before_arrival;
};

// Thread-safe, within gRPC's rules: one read and one sending operation of the server at a time. Between the two ends
// are a few messages of room each way, as HTTP/2's windows are; beyond it senders wait.
class CallState {
 public:
  using Queue = grpc::CompletionQueue;
  using Operation = std::unique_ptr<Queue::Operation>;

  // What a server prepared for the next call.
  struct Requested {
    grpc::GenericServerContext* context;
    grpc::GenericServerAsyncReaderWriter* stream;
    Queue* queue;
    Operation operation;
  };

  // `on_ended` is called once, on the thread that ends it. `done_first`: which of the events of the call's end comes
  // first, that of AsyncNotifyWhenDone or those of the operations under way; gRPC promises neither.
  CallState(CallStart start, bool done_first, std::function<void()> on_ended)
      : start_(std::move(start)), done_first_(done_first), on_ended_(std::move(on_ended)) {}

  const CallStart& start() const { return start_; }

  // The server's end. `self` is this object.
  static void Arrive(const std::shared_ptr<CallState>& self, Requested requested);
  void Read(grpc::ByteBuffer* message, void* tag);
  void Write(const grpc::ByteBuffer& message, void* tag);
  void Finish(const grpc::ByteBuffer* message, const grpc::Status& status, Trailers trailers, void* tag);

  // The client's end. Send waits for room; false when the call has ended.
  bool Send(const grpc::ByteBuffer& message);
  void HalfClose();
  // Waits for a message; nothing at the end.
  std::optional<std::string> Receive();
  // Waits for the end, whatever messages are left.
  Ending Await();

  // Ends the call, unless it has ended: its client went away, its deadline passed, the server cancels all.
  void Cancel(const grpc::Status& why);

 private:
  template <typename T>
  using Owned = std::shared_ptr<T>;  // Moved, not shared; but std::function wants to be copied.

  // What is left to do when the lock has been given back.
  struct Outcome {
    struct Event {
      Operation operation;
      bool ok;
      std::function<void()> take;
    };
    std::vector<Event> events;
    std::deque<Owned<grpc::ByteBuffer>> dropped;
    bool ended = false;
  };

  void Accept(Queue& queue, grpc::ServerContext& context);
  void SayDone(bool cancelled, Outcome& outcome);
  void AnswerRead(bool ok, Outcome& outcome);
  // Ends what there is room for now.
  void SendOn(Outcome& outcome);
  void End(bool cancelled, Outcome& outcome);
  void Publish(Outcome& outcome);

  const CallStart start_;
  const bool done_first_;
  const std::function<void()> on_ended_;

  std::mutex mu_;
  std::condition_variable changed_;
  Queue* queue_ = nullptr;  // Once the server has taken its arrival.
  grpc::ServerContext* context_ = nullptr;
  Operation done_;
  std::deque<Owned<grpc::ByteBuffer>> requests_;
  std::deque<Owned<grpc::ByteBuffer>> responses_;
  bool half_closed_ = false;
  Operation read_, write_, finish_;  // Under way.
  grpc::ByteBuffer* read_into_ = nullptr;
  Owned<Ending> finishing_;  // Of `finish_`.
  Owned<Ending> ending_;
  bool finished_ = false;  // The server has said how it ends.
  bool ended_ = false;
};

}  // namespace attend::fake_grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_CALL_STATE_H_
