#include "server/rpc/request_run.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

// Requests of more bytes are decoded on the executor's threads: gathering 64 KiB takes about as long as waking a
// thread, and the polling thread has other calls to serve.
constexpr std::size_t kInlineDecodeBytes = 64 << 10;

// grpc::ByteBuffer has no move constructor: "moving" one leaves a reference to its bytes behind, and they would stay in
// memory for as long as the call.
grpc::ByteBuffer Take(grpc::ByteBuffer& buffer) {
  grpc::ByteBuffer taken;
  taken.Swap(&buffer);
  return taken;
}

}  // namespace

void RequestRun::Start(grpc::ByteBuffer& request, std::chrono::system_clock::time_point deadline,
                       std::optional<double> hinted_flops) {
  deadline_ = deadline;
  const std::size_t bytes = request.Length();
  if (!Reserve(bytes)) return;
  if (bytes > kInlineDecodeBytes) return SubmitRequest(request, hinted_flops);
  if (!Decode(request)) return;
  if (job_->flops() <= services_.inline_flops && !job_->may_wait()) return Compute(/*turn=*/nullptr);
  SubmitJob();
}

bool RequestRun::Reserve(std::size_t bytes) {
  if (static_cast<std::int64_t>(bytes) > services_.limits.max_request_bytes) {
    owner_.OnError(LimitExceeded("--max-request-bytes",
                                 absl::StrCat("the request has ", bytes, " bytes; this server accepts at most ",
                                              services_.limits.max_request_bytes, " (--max-request-bytes)")));
    return false;
  }
  // What is decoded takes no more than its bytes did. Methods that are never refused decode next to nothing.
  absl::StatusOr<MemoryBudget::Reservation> memory =
      services_.memory->Reserve(method_.refusable ? static_cast<double>(bytes) : 0);
  if (!memory.ok()) {
    owner_.OnError(memory.status());
    return false;
  }
  memory_ = *std::move(memory);
  return true;
}

bool RequestRun::Decode(grpc::ByteBuffer& request) {
  const Clock::time_point start = Clock::now();
  absl::StatusOr<std::unique_ptr<Job>> job = method_.decode(request, services_.limits);
  request.Clear();
  timing_.receive += Clock::now() - start;
  absl::Status status = job.ok() ? memory_.Resize((*job)->memory_bytes()) : job.status();
  if (!status.ok()) {
    owner_.OnError(status);
    return false;
  }
  job_ = *std::move(job);
  return true;
}

void RequestRun::Compute(Admission::Turn* turn) {
  if (turn != nullptr) {
    if (absl::Status begun = turn->Begin(Cost()); !begun.ok()) return owner_.OnError(begun);
  }
  Executor* const helpers = turn != nullptr ? &services_.admission->executor() : nullptr;
  const Clock::time_point start = Clock::now();
  const ComputeContext context{
      .executor = helpers, .cancelled = &call_.cancelled(), .instruction_set = services_.instruction_set};
  const absl::Status computed = job_->Compute(context);
  const Clock::time_point end = Clock::now();
  timing_.compute = end - start;
  if (!computed.ok() && turn != nullptr) turn->Stopped();
  if (!computed.ok()) return owner_.OnError(absl::IsCancelled(computed) ? call_.CancelledStatus() : computed);
  const grpc::ByteBuffer response = job_->TakeResponse();
  memory_.ShrinkTo(static_cast<std::int64_t>(response.Length()));
  timing_.send = Clock::now() - end;
  owner_.OnResponse(response);
}

void RequestRun::SubmitRequest(grpc::ByteBuffer& request, std::optional<double> hinted_flops) {
  const Clock::time_point submitted = Clock::now();
  Admission::Request asked{.deadline = deadline_};
  // Its bytes are read, written and, roughly, answered.
  if (hinted_flops) asked.cost = {.flops = *hinted_flops, .bytes = 2 * static_cast<double>(request.Length())};
  absl::Status admitted = services_.admission->Submit(
      asked, [this, ref = CallRef(call_), request = Take(request), submitted](Admission::Turn& turn) mutable {
        timing_.queue = Clock::now() - submitted;
        if (StillWanted() && Decode(request)) Compute(&turn);
      });
  if (!admitted.ok()) owner_.OnError(admitted);
}

void RequestRun::SubmitJob() {
  const Clock::time_point submitted = Clock::now();
  absl::Status admitted = services_.admission->Submit({.deadline = deadline_, .cost = Cost()},
                                                      [this, ref = CallRef(call_), submitted](Admission::Turn& turn) {
                                                        timing_.queue = Clock::now() - submitted;
                                                        if (StillWanted()) Compute(&turn);
                                                      });
  if (!admitted.ok()) owner_.OnError(admitted);
}

// Looked at when a job leaves the queue: whether the caller has gone or its time is up.
bool RequestRun::StillWanted() {
  if (!call_.cancelled() && std::chrono::system_clock::now() < deadline_) return true;
  owner_.OnError(call_.cancelled() || call_.DeadlinePassed()
                     ? call_.CancelledStatus()
                     : absl::DeadlineExceededError("the request's timeout passed before it could be computed"));
  return false;
}

}  // namespace attend::server
