#include "tests/fake_grpc/call_state.h"

#include <utility>

#include "tests/fake_grpc/edges.h"
#include "tests/fake_grpc/require.h"

namespace attend::fake_grpc {
namespace {

// Messages that may be on their way in one direction.
constexpr std::size_t kRoom = 2;

// A reference to the bytes of `message`, for the other thread.
std::shared_ptr<grpc::ByteBuffer> ForOther(const grpc::ByteBuffer& message) {
  auto copy = std::make_shared<grpc::ByteBuffer>(message);
  Before(copy.get());
  return copy;
}

}  // namespace

void CallState::Publish(Outcome& outcome) {
  for (const Owned<grpc::ByteBuffer>& message : outcome.dropped) After(message.get());
  for (Outcome::Event& event : outcome.events) {
    queue_->End(std::move(event.operation), event.ok, std::move(event.take));
  }
  if (outcome.ended) on_ended_();
}

void CallState::AnswerRead(bool ok, Outcome& outcome) {
  if (read_ == nullptr) return;
  if (!ok) return outcome.events.push_back({std::move(read_), false, nullptr});
  outcome.events.push_back({std::move(read_), true, [from = std::move(requests_.front()), to = read_into_] {
                              After(from.get());
                              to->Swap(from.get());
                            }});
  requests_.pop_front();
  changed_.notify_all();
}

void CallState::SendOn(Outcome& outcome) {
  if (ended_ || responses_.size() > kRoom) return;
  if (write_ != nullptr) outcome.events.push_back({std::move(write_), true, nullptr});
  if (finish_ == nullptr) return;
  ending_ = std::move(finishing_);
  End(/*cancelled=*/false, outcome);
}

void CallState::End(bool cancelled, Outcome& outcome) {
  ended_ = outcome.ended = true;
  outcome.dropped.swap(requests_);
  while (cancelled && !responses_.empty()) {
    outcome.dropped.push_back(std::move(responses_.front()));
    responses_.pop_front();
  }
  if (done_first_) SayDone(cancelled, outcome);
  AnswerRead(/*ok=*/false, outcome);
  if (write_ != nullptr) outcome.events.push_back({std::move(write_), false, nullptr});
  if (finish_ != nullptr) outcome.events.push_back({std::move(finish_), !cancelled, nullptr});
  if (!done_first_) SayDone(cancelled, outcome);
  changed_.notify_all();
}

void CallState::Arrive(const std::shared_ptr<CallState>& self, Requested requested) {
  Queue& queue = *requested.queue;
  queue.End(std::move(requested.operation), true,
            [self, &queue, context = requested.context, stream = requested.stream] {
              context->method_ = self->start_.method;
              context->deadline_ = self->start_.deadline;
              for (const auto& [key, value] : self->start_.metadata) context->client_metadata_.emplace(key, value);
              stream->call_ = self;
              context->call_ = self;
              self->Accept(queue, *context);
              if (self->start_.before_arrival) self->start_.before_arrival();
            });
}

// As in gRPC, the server waits for the end of a call once it has taken the event of its arrival.
void CallState::Accept(Queue& queue, grpc::ServerContext& context) {
  Outcome outcome;
  Operation done = queue.Begin(context.done_tag_);
  {
    const HiddenLock lock(mu_);
    queue_ = &queue;
    context_ = &context;
    done_ = std::move(done);
    if (ended_) SayDone(/*cancelled=*/true, outcome);  // On the way here.
  }
  Publish(outcome);
}

void CallState::SayDone(bool cancelled, Outcome& outcome) {
  if (done_ == nullptr) return;
  outcome.events.push_back({std::move(done_), true, [context = context_, cancelled] {
                              context->cancelled_.store(cancelled, std::memory_order_relaxed);
                            }});
}

void CallState::Read(grpc::ByteBuffer* message, void* tag) {
  Outcome outcome;
  Operation read = queue_->Begin(tag);
  {
    const HiddenLock lock(mu_);
    Require(read_ == nullptr, "a read begins while another is under way");
    read_ = std::move(read);
    read_into_ = message;
    if (!requests_.empty()) {
      AnswerRead(/*ok=*/true, outcome);
    } else if (half_closed_ || ended_) {
      AnswerRead(/*ok=*/false, outcome);
    }
  }
  Publish(outcome);
}

void CallState::Write(const grpc::ByteBuffer& message, void* tag) {
  Outcome outcome;
  Operation write = queue_->Begin(tag);
  std::shared_ptr<grpc::ByteBuffer> response = ForOther(message);
  {
    const HiddenLock lock(mu_);
    Require(write_ == nullptr && !finished_, "two operations that send at a time");
    if (ended_) {
      outcome.events.push_back({std::move(write), false, nullptr});
    } else {
      write_ = std::move(write);
      responses_.push_back(std::move(response));
      SendOn(outcome);
      changed_.notify_all();
    }
  }
  Publish(outcome);
}

void CallState::Finish(const grpc::ByteBuffer* message, const grpc::Status& status, Trailers trailers, void* tag) {
  Outcome outcome;
  Operation finish = queue_->Begin(tag);
  std::shared_ptr<grpc::ByteBuffer> response = message == nullptr ? nullptr : ForOther(*message);
  auto ending = std::make_shared<Ending>(Ending{status, std::move(trailers)});
  Before(ending.get());
  {
    const HiddenLock lock(mu_);
    Require(write_ == nullptr && !finished_, "two operations that send at a time, or two ends of a call");
    finished_ = true;
    if (ended_) {
      outcome.events.push_back({std::move(finish), false, nullptr});
    } else {
      finish_ = std::move(finish);
      finishing_ = std::move(ending);
      if (response != nullptr) responses_.push_back(std::move(response));
      SendOn(outcome);
      changed_.notify_all();
    }
  }
  Publish(outcome);
}

bool CallState::Send(const grpc::ByteBuffer& message) {
  Outcome outcome;
  std::shared_ptr<grpc::ByteBuffer> request = ForOther(message);
  {
    HiddenLock lock(mu_);
    while (!ended_ && requests_.size() >= kRoom) changed_.wait(lock);
    if (ended_) return false;
    requests_.push_back(std::move(request));
    if (read_ != nullptr) AnswerRead(/*ok=*/true, outcome);
  }
  Publish(outcome);
  return true;
}

void CallState::HalfClose() {
  Outcome outcome;
  {
    const HiddenLock lock(mu_);
    half_closed_ = true;
    if (requests_.empty()) AnswerRead(/*ok=*/false, outcome);
  }
  Publish(outcome);
}

std::optional<std::string> CallState::Receive() {
  Outcome outcome;
  std::shared_ptr<grpc::ByteBuffer> response;
  {
    HiddenLock lock(mu_);
    while (responses_.empty() && !ended_) changed_.wait(lock);
    if (responses_.empty()) return std::nullopt;
    response = std::move(responses_.front());
    responses_.pop_front();
    SendOn(outcome);
  }
  After(response.get());
  Publish(outcome);
  std::string bytes;
  std::vector<grpc::Slice> slices;
  response->Dump(&slices);
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

Ending CallState::Await() {
  while (Receive().has_value()) {
  }
  std::shared_ptr<Ending> ending;
  {
    const HiddenLock lock(mu_);
    ending = std::move(ending_);
  }
  Require(ending != nullptr, "(of the test) a call's end is asked for twice");
  After(ending.get());
  return *ending;
}

void CallState::Cancel(const grpc::Status& why) {
  Outcome outcome;
  auto ending = std::make_shared<Ending>(Ending{why, {}});
  Before(ending.get());
  {
    const HiddenLock lock(mu_);
    if (ended_) return;
    ending_ = std::move(ending);
    End(/*cancelled=*/true, outcome);
  }
  Publish(outcome);
}

}  // namespace attend::fake_grpc
