#include <grpcpp/completion_queue.h>

#include <chrono>
#include <utility>

#include "tests/fake_grpc/edges.h"
#include "tests/fake_grpc/require.h"

namespace grpc {

using attend::fake_grpc::After;
using attend::fake_grpc::Before;
using attend::fake_grpc::HiddenLock;
using attend::fake_grpc::Require;

CompletionQueue::~CompletionQueue() {
  const HiddenLock lock(mu_);
  Require(shutdown_, "a completion queue is destroyed that was not shut down");
  Require(begun_ == 0 && ended_.empty(), "a completion queue is destroyed before its last event was taken");
}

CompletionQueue::NextStatus CompletionQueue::AsyncNext(void** tag, bool* ok, gpr_timespec deadline) {
  const bool waits = gpr_time_cmp(deadline, gpr_inf_past(GPR_CLOCK_MONOTONIC)) != 0;
  const std::chrono::steady_clock::time_point until{std::chrono::seconds(deadline.tv_sec) +
                                                    std::chrono::nanoseconds(deadline.tv_nsec)};
  std::unique_ptr<Operation> event;
  {
    HiddenLock lock(mu_);
    while (waits && ended_.empty() && !(shutdown_ && begun_ == 0)) {
      if (changed_.wait_until(lock, until) == std::cv_status::timeout) break;
    }
    if (ended_.empty()) return shutdown_ && begun_ == 0 ? SHUTDOWN : TIMEOUT;
    event = std::move(ended_.front());
    ended_.pop_front();
  }
  After(event.get());
  if (event->take) event->take();
  *tag = event->tag;
  *ok = event->ok;
  return GOT_EVENT;
}

void CompletionQueue::Shutdown() {
  const HiddenLock lock(mu_);
  shutdown_ = true;
  changed_.notify_all();
}

std::unique_ptr<CompletionQueue::Operation> CompletionQueue::Begin(void* tag) {
  auto operation = std::make_unique<Operation>(Operation{.tag = tag, .ok = false, .take = nullptr});
  Before(operation.get());
  const HiddenLock lock(mu_);
  Require(!shutdown_, "an operation begins on a completion queue that was shut down");
  ++begun_;
  return operation;
}

void CompletionQueue::End(std::unique_ptr<Operation> operation, bool ok, std::function<void()> take) {
  After(operation.get());
  operation->ok = ok;
  operation->take = std::move(take);
  Before(operation.get());
  const HiddenLock lock(mu_);
  ended_.push_back(std::move(operation));
  --begun_;
  changed_.notify_all();
}

}  // namespace grpc
