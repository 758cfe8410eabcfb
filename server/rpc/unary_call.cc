#include "server/rpc/unary_call.h"

#include <string>
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

class UnaryCall final : public CallHandler {
 public:
  UnaryCall(const UnaryServices& services, const UnaryMethod& method) : services_(services), method_(method) {}

  void OnStart(Call& call) override;
  void OnRead(Call& call, grpc::ByteBuffer* message) override;

 private:
  // Each of these ends the call when it cannot go on.
  void Decode(Call& call, grpc::ByteBuffer& request);
  void Compute(Call& call, Executor* helpers);
  void SubmitRequest(Call& call, grpc::ByteBuffer& request);
  void SubmitJob(Call& call);
  // Whether the caller has gone or its time is up; looked at when a job leaves the queue.
  bool FinishedBeforeStart(Call& call);

  const UnaryServices& services_;
  const UnaryMethod& method_;
  // Given back when the call, and with it this handler, is deleted: then nothing of it is left to send.
  MemoryBudget::Reservation memory_;
  std::unique_ptr<Job> job_;
};

void UnaryCall::OnStart(Call& call) {
  if (method_.refusable) {
    if (absl::Status admitted = services_.admission->Check(call.context().deadline()); !admitted.ok())
      return call.Finish(admitted);
  }
  call.Read();
}

void UnaryCall::OnRead(Call& call, grpc::ByteBuffer* message) {
  call.timing().receive = Clock::now() - call.arrival();
  if (message == nullptr) {
    return call.Finish(call.cancelled()
                           ? call.CancelledStatus()
                           : absl::UnimplementedError("the call ended without the one request message it must have"));
  }
  const auto bytes = static_cast<std::int64_t>(message->Length());
  if (bytes > services_.limits.max_request_bytes) {
    return call.Finish(LimitExceeded("--max-request-bytes",
                                     absl::StrCat("the request has ", bytes, " bytes; this server accepts at most ",
                                                  services_.limits.max_request_bytes, " (--max-request-bytes)")));
  }
  // What is decoded takes no more than its bytes did. Methods that are never refused decode next to nothing.
  absl::StatusOr<MemoryBudget::Reservation> memory =
      services_.memory->Reserve(method_.refusable ? static_cast<double>(bytes) : 0);
  if (!memory.ok()) return call.Finish(memory.status());
  memory_ = *std::move(memory);
  if (message->Length() > kInlineDecodeBytes) return SubmitRequest(call, *message);
  Decode(call, *message);
  message->Clear();
  if (job_ == nullptr) return;
  if (job_->flops() <= services_.inline_flops) return Compute(call, /*helpers=*/nullptr);
  SubmitJob(call);
}

void UnaryCall::Decode(Call& call, grpc::ByteBuffer& request) {
  const Clock::time_point start = Clock::now();
  absl::StatusOr<std::unique_ptr<Job>> job = method_.decode(request, services_.limits);
  call.timing().receive += Clock::now() - start;
  if (!job.ok()) return call.Finish(job.status());
  if (absl::Status enough = memory_.Resize((*job)->memory_bytes()); !enough.ok()) return call.Finish(enough);
  job_ = *std::move(job);
}

void UnaryCall::Compute(Call& call, Executor* helpers) {
  const Clock::time_point start = Clock::now();
  const ComputeContext context{
      .executor = helpers, .cancelled = &call.cancelled(), .instruction_set = services_.instruction_set};
  const absl::Status computed = job_->Compute(context);
  const Clock::time_point end = Clock::now();
  call.timing().compute = end - start;
  if (!computed.ok()) return call.Finish(absl::IsCancelled(computed) ? call.CancelledStatus() : computed);
  const grpc::ByteBuffer response = job_->TakeResponse();
  memory_.ShrinkTo(static_cast<std::int64_t>(response.Length()));
  call.timing().send = Clock::now() - end;
  call.FinishWithResponse(response);
}

void UnaryCall::SubmitRequest(Call& call, grpc::ByteBuffer& request) {
  const Clock::time_point submitted = Clock::now();
  absl::Status admitted =
      services_.admission->Submit([this, ref = CallRef(call), request = Take(request), submitted]() mutable {
        ref->timing().queue = Clock::now() - submitted;
        if (FinishedBeforeStart(*ref)) return;
        Decode(*ref, request);
        request.Clear();
        if (job_ != nullptr) Compute(*ref, &services_.admission->executor());
      });
  if (!admitted.ok()) call.Finish(admitted);
}

void UnaryCall::SubmitJob(Call& call) {
  const Clock::time_point submitted = Clock::now();
  absl::Status admitted = services_.admission->Submit([this, ref = CallRef(call), submitted]() mutable {
    ref->timing().queue = Clock::now() - submitted;
    if (!FinishedBeforeStart(*ref)) Compute(*ref, &services_.admission->executor());
  });
  if (!admitted.ok()) call.Finish(admitted);
}

bool UnaryCall::FinishedBeforeStart(Call& call) {
  if (!call.cancelled() && !call.DeadlinePassed()) return false;
  call.Finish(call.CancelledStatus());
  return true;
}

}  // namespace

Method MakeUnaryMethod(const UnaryServices& services, UnaryMethod method) {
  // One copy of the method, shared by its calls, rather than one of its decoder for each call.
  auto shared = std::make_shared<const UnaryMethod>(std::move(method));
  return {.make_handler = [&services, shared] { return std::make_unique<UnaryCall>(services, *shared); }};
}

}  // namespace attend::server
