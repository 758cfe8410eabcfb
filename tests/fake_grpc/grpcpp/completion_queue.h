// grpc::CompletionQueue, for tests/fake_grpc.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_COMPLETION_QUEUE_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_COMPLETION_QUEUE_H_

#include <grpc/support/time.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace grpc {

// Thread-safe.
class CompletionQueue {
 public:
  enum NextStatus { SHUTDOWN, GOT_EVENT, TIMEOUT };

  CompletionQueue() = default;
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;
  ~CompletionQueue();

  // Waits for an event until `deadline`, which is the infinite past or soon, on the monotonic clock.
  NextStatus AsyncNext(void** tag, bool* ok, gpr_timespec deadline);
  // No operation may be started any more. SHUTDOWN comes when all that were have ended and their events are taken.
  void Shutdown();

  // From here on: not gRPC's. Every operation begins and ends once.
  struct Operation {
    void* tag;
    bool ok = false;
    std::function<void()> take;
  };
  std::unique_ptr<Operation> Begin(void* tag);
  // What `take` does, such as handing over a message, happens on the thread that takes the event, as in gRPC.
  void End(std::unique_ptr<Operation> operation, bool ok, std::function<void()> take = nullptr);

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Operation>> ended_;
  int begun_ = 0;  // And not ended.
  bool shutdown_ = false;
};

class ServerCompletionQueue : public CompletionQueue {};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_COMPLETION_QUEUE_H_
