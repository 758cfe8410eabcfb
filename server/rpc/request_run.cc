#include "server/rpc/request_run.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

// Requests of more bytes are decoded on the executor's threads: gathering 64 KiB takes about as long as waking a
// thread, and the polling thread has other calls to serve. Methods that are never refused cannot wait for a thread, and
// accept no large messages.
constexpr std::size_t kInlineDecodeBytes = 64 << 10;

// grpc::ByteBuffer has no move constructor: "moving" one leaves a reference to its bytes behind, and they would stay in
// memory for as long as the call.
grpc::ByteBuffer Take(grpc::ByteBuffer& buffer) {
  grpc::ByteBuffer taken;
  taken.Swap(&buffer);
  return taken;
}

std::optional<double> CostHint(const grpc::ServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto hint = metadata.find(kCostHintKey);
  if (hint == metadata.end()) return std::nullopt;
  return ParseCostHint({hint->second.data(), hint->second.size()});
}

class UnaryCall final : public CallHandler, public RequestRun::Owner {
 public:
  UnaryCall(const RequestServices& services, const RequestMethod& method) : services_(services), method_(method) {}

  void OnStart(Call& call) override;
  void OnRead(Call& call, grpc::ByteBuffer* message) override;
  void OnResponse(const grpc::ByteBuffer& response) override { call_->FinishWithResponse(response); }
  void OnError(const absl::Status& status) override { call_->Finish(status); }

 private:
  absl::Status Admit(const Call& call) const;

  const RequestServices& services_;
  const RequestMethod& method_;
  Call* call_ = nullptr;  // Owns this.
  std::optional<double> hinted_flops_;
  // Destroyed when the call, and with it this handler, is deleted: then nothing of it is left to send.
  std::optional<RequestRun> run_;
};

void UnaryCall::OnStart(Call& call) {
  call_ = &call;
  if (method_.refusable) {
    hinted_flops_ = CostHint(call.context());
    // The decoder refuses that too, and can say why.
    if (hinted_flops_ > services_.limits.max_request_flops) hinted_flops_.reset();
    if (absl::Status admitted = Admit(call); !admitted.ok()) return call.Finish(admitted);
  }
  call.Read();
}

absl::Status UnaryCall::Admit(const Call& call) const {
  // What runs on the polling thread waits for nobody. If it was no small job after all, Submit says so.
  if (hinted_flops_ && *hinted_flops_ <= services_.inline_flops) return absl::OkStatus();
  Admission::Request asked{.deadline = call.context().deadline()};
  if (hinted_flops_) asked.cost = {.flops = *hinted_flops_};
  return services_.admission->Check(asked);
}

void UnaryCall::OnRead(Call& call, grpc::ByteBuffer* message) {
  call.timing().receive = Clock::now() - call.arrival();
  if (message == nullptr) return call.Finish(call.MissingRequestStatus());
  run_.emplace(services_, method_, call, *this, call.timing());
  run_->Start(*message, call.context().deadline(), hinted_flops_);
}

}  // namespace

void RequestRun::Start(grpc::ByteBuffer& request, std::chrono::system_clock::time_point deadline,
                       std::optional<double> hinted_flops) {
  deadline_ = deadline;
  const std::size_t bytes = request.Length();
  if (!Reserve(bytes)) return;
  if (bytes > kInlineDecodeBytes && method_.refusable) return SubmitRequest(request, hinted_flops);
  if (!Decode(request)) return;
  if (job_->flops() <= services_.inline_flops) return Compute(/*task=*/nullptr);
  SubmitJob();
}

absl::Status CheckRequestBytes(std::int64_t bytes, const Limits& limits) {
  if (bytes <= limits.max_request_bytes) return absl::OkStatus();
  return LimitExceeded("--max-request-bytes",
                       absl::StrCat("the request has ", bytes, " bytes; this server accepts at most ",
                                    limits.max_request_bytes, " (--max-request-bytes)"));
}

bool RequestRun::Reserve(std::size_t bytes) {
  if (absl::Status s = CheckRequestBytes(static_cast<std::int64_t>(bytes), services_.limits); !s.ok()) {
    owner_.OnError(s);
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

void RequestRun::Compute(Admission::RunningTask* task) {
  if (task != nullptr) {
    if (absl::Status begun = task->Begin(Cost()); !begun.ok()) return owner_.OnError(begun);
  }
  Executor* const helpers = task != nullptr ? &services_.admission->executor() : nullptr;
  const Clock::time_point start = Clock::now();
  const ComputeContext context{
      .executor = helpers, .cancelled = &call_.cancelled(), .instruction_set = services_.instruction_set};
  const absl::Status computed = job_->Compute(context);
  const Clock::time_point end = Clock::now();
  timing_.compute = end - start;
  if (!computed.ok() && task != nullptr) task->Stopped();
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
      asked, [this, ref = CallRef(call_), request = Take(request), submitted](Admission::RunningTask& task) mutable {
        timing_.queue = Clock::now() - submitted;
        if (StillWanted() && Decode(request)) Compute(&task);
      });
  if (!admitted.ok()) owner_.OnError(admitted);
}

void RequestRun::SubmitJob() {
  const Clock::time_point submitted = Clock::now();
  absl::Status admitted = services_.admission->Submit(
      {.deadline = deadline_, .cost = Cost()}, [this, ref = CallRef(call_), submitted](Admission::RunningTask& task) {
        timing_.queue = Clock::now() - submitted;
        if (StillWanted()) Compute(&task);
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

MethodEntry MakeUnaryMethod(const RequestServices& services, RequestMethod method) {
  // One copy of the method, shared by its calls, rather than one of its decoder for each call.
  auto shared = std::make_shared<const RequestMethod>(std::move(method));
  return {.make_handler = [&services, shared] { return std::make_unique<UnaryCall>(services, *shared); }};
}

}  // namespace attend::server
