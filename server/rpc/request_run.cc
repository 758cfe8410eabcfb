#include "server/rpc/request_run.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

// grpc::ByteBuffer has no move constructor: "moving" one leaves a reference to its bytes behind, and they would stay in
// memory for as long as the call.
grpc::ByteBuffer Take(grpc::ByteBuffer& buffer) {
  grpc::ByteBuffer taken;
  taken.Swap(&buffer);
  return taken;
}

class UnaryCall final : public CallHandler, public RequestRun::Owner {
 public:
  UnaryCall(const RequestServices& services, const RequestMethod& method) : request_(services, method) {}

  void OnStart(Call& call) override;
  void OnRead(Call& call, grpc::ByteBuffer* message) override;
  void OnResponse(const grpc::ByteBuffer& response, Clock::time_point now) override {
    call_->FinishWithResponse(response, now);
  }
  void OnError(const absl::Status& status) override { call_->Finish(status); }

 private:
  Call* call_ = nullptr;  // Owns this.
  UnaryRequest request_;
};

void UnaryCall::OnStart(Call& call) {
  call_ = &call;
  if (absl::Status admitted = request_.Admit(call); !admitted.ok()) return call.Finish(admitted);
  call.Read();
}

void UnaryCall::OnRead(Call& call, grpc::ByteBuffer* message) {
  if (message == nullptr) {
    call.timing().receive = Clock::now() - call.arrival();
    return call.Finish(call.MissingRequestStatus());
  }
  request_.Start(call, *this, *message);
}

}  // namespace

absl::Status UnaryRequest::Admit(const InboundCall& call) {
  if (!method_.refusable) return absl::OkStatus();
  hinted_flops_ = ParseCostHint(call.Metadata(kCostHintKey));
  // The decoder refuses that too, and can say why.
  if (hinted_flops_ > services_.limits.max_request_flops) hinted_flops_.reset();
  // What runs on the polling thread waits for nobody. If it was no small job after all, Submit says so.
  if (hinted_flops_ && *hinted_flops_ <= services_.inline_flops) return absl::OkStatus();
  if (absl::Status rate = TenantRequest::CheckRate(call.account()); !rate.ok()) return rate;
  Admission::Request asked{.deadline = call.deadline(), .account = call.account()};
  if (hinted_flops_) asked.cost = {.flops = *hinted_flops_};
  return services_.admission->Check(asked);
}

void UnaryRequest::Start(InboundCall& call, RequestRun::Owner& owner, grpc::ByteBuffer& request) {
  call.timing().receive = Clock::now() - call.arrival();
  run_.emplace(services_, method_, call, owner, call.timing());
  run_->Start(request, call.deadline(), hinted_flops_);
}

void RequestRun::Start(grpc::ByteBuffer& request, std::chrono::system_clock::time_point deadline,
                       std::optional<double> hinted_flops) {
  deadline_ = deadline;
  const std::size_t bytes = request.Length();
  if ((method_.refusable && !BeginForTenant()) || !Reserve(bytes)) return request.Clear();
  if (bytes > method_.inline_decode_bytes) return SubmitRequest(request, hinted_flops);
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

bool RequestRun::BeginForTenant() {
  absl::StatusOr<TenantRequest> begun = TenantRequest::Begin(call_.account());
  if (!begun.ok()) {
    Fail(begun.status());
    return false;
  }
  tenant_request_ = *std::move(begun);
  return true;
}

bool RequestRun::Reserve(std::size_t bytes) {
  // What is sent in another form has a limit of its own, which its transport knows.
  const absl::Status size =
      method_.transcode ? absl::OkStatus() : CheckRequestBytes(static_cast<std::int64_t>(bytes), services_.limits);
  if (!size.ok()) {
    Fail(size);
    return false;
  }
  absl::StatusOr<MemoryBudget::Reservation> memory =
      services_.memory->Reserve(method_.decode_memory * static_cast<double>(bytes), call_.account());
  if (!memory.ok()) {
    Fail(memory.status());
    return false;
  }
  memory_ = *std::move(memory);
  return true;
}

bool RequestRun::Decode(grpc::ByteBuffer& request) {
  const Clock::time_point start = Clock::now();
  absl::Status status = Transcode(request);
  if (status.ok()) {
    const auto take_memory = [this](double bytes) {
      // Not less as yet: the request is still there.
      return bytes <= static_cast<double>(memory_.bytes()) ? absl::OkStatus() : memory_.Resize(bytes);
    };
    absl::StatusOr<std::unique_ptr<Job>> job = method_.decode(request, {services_.limits, call_.tenant(), take_memory});
    request.Clear();
    status = job.ok() ? memory_.Resize(MemoryOf(**job)) : job.status();
    if (status.ok()) job_ = *std::move(job);
  }
  decoded_ = Clock::now();
  timing_.receive += decoded_ - start;
  if (status.ok()) return true;
  request.Clear();  // Or what was made of it, which may be too long.
  Fail(status);
  return false;
}

double RequestRun::MemoryOf(const Job& job) const {
  const double memory = job.memory_bytes();
  return method_.answer_memory > 1 ? std::max(memory, method_.answer_memory * job.response_bytes()) : memory;
}

absl::Status RequestRun::Transcode(grpc::ByteBuffer& request) const {
  if (!method_.transcode) return absl::OkStatus();
  absl::StatusOr<grpc::ByteBuffer> serialized = method_.transcode(request);
  if (!serialized.ok()) return serialized.status();
  request.Swap(&*serialized);
  return CheckRequestBytes(static_cast<std::int64_t>(request.Length()), services_.limits);
}

void RequestRun::Compute(Admission::RunningTask* task) {
  if (task != nullptr) {
    if (absl::Status begun = task->Begin(Cost()); !begun.ok()) return Fail(begun);
  }
  Executor* const helpers = task != nullptr ? &services_.admission->executor() : nullptr;
  // Without a task it was decoded just now.
  const Clock::time_point start = task != nullptr ? Clock::now() : decoded_;
  const ComputeContext context{.executor = helpers,
                               .cancelled = &call_.cancelled(),
                               .instruction_set = services_.kernels.instruction_set,
                               .fast_kernels = services_.kernels.fast,
                               .tile_break = task};
  const absl::Status computed = job_->Compute(context);
  const Clock::time_point end = Clock::now();
  timing_.compute = end - start;
  if (task != nullptr) {
    timing_.compute -= task->interrupted();
    timing_.queue += task->interrupted();
  } else if (call_.account() != nullptr && method_.kind != WorkKind::kControl) {
    call_.account()->tenant->Computed(timing_.compute, /*waited=*/false, end);
  }
  if (services_.on_computed && method_.kind != WorkKind::kControl) {
    services_.on_computed(
        {.kind = method_.kind, .flops = job_->flops(), .took = timing_.compute, .completed = computed.ok()});
  }
  if (!computed.ok() && task != nullptr) task->Stopped();
  if (!computed.ok()) return Fail(absl::IsCancelled(computed) ? call_.CancelledStatus() : computed);
  const grpc::ByteBuffer response = job_->TakeResponse();
  job_.reset();  // The answer may wait for its reader for long.
  Respond(response, end);
}

void RequestRun::Respond(const grpc::ByteBuffer& response, Clock::time_point computed) {
  memory_.ShrinkTo(static_cast<std::int64_t>(method_.answer_memory * static_cast<double>(response.Length())));
  tenant_request_ = TenantRequest();
  const Clock::time_point now = Clock::now();
  timing_.send = now - computed;
  owner_.OnResponse(response, now);
}

void RequestRun::Fail(const absl::Status& status) {
  tenant_request_ = TenantRequest();
  job_.reset();  // The error may wait for its reader for long.
  memory_.ShrinkTo(0);
  owner_.OnError(status);
}

void RequestRun::SubmitRequest(grpc::ByteBuffer& request, std::optional<double> hinted_flops) {
  const Clock::time_point submitted = Clock::now();
  Admission::Request asked{
      .deadline = deadline_, .account = call_.account(), .undecoded_bytes = static_cast<double>(request.Length())};
  // Its bytes are read, written and, roughly, answered.
  if (hinted_flops) asked.cost = {.flops = *hinted_flops, .bytes = 2 * static_cast<double>(request.Length())};
  absl::Status admitted = services_.admission->Submit(
      asked, [this, ref = InboundRef(call_), request = Take(request), submitted](Admission::RunningTask& task) mutable {
        timing_.queue = Clock::now() - submitted;
        if (!StillWanted(task) || !Decode(request)) return;
        if (task.MustWait(Cost()) && PutBack(task)) return;
        Compute(&task);
      });
  if (!admitted.ok()) Fail(admitted);
}

void RequestRun::SubmitJob() {
  const Clock::time_point submitted = Clock::now();
  absl::Status admitted =
      services_.admission->Submit({.deadline = deadline_, .cost = Cost(), .account = call_.account()},
                                  [this, ref = InboundRef(call_), submitted](Admission::RunningTask& task) {
                                    timing_.queue = Clock::now() - submitted;
                                    if (StillWanted(task)) Compute(&task);
                                  });
  if (!admitted.ok()) Fail(admitted);
}

// A decoded job that is too long to interrupt another waits for a thread of its own.
bool RequestRun::PutBack(Admission::RunningTask& task) {
  const Clock::time_point since = Clock::now();
  return task.PutBack(Cost(), [this, ref = InboundRef(call_), since](Admission::RunningTask& next) {
    timing_.queue += Clock::now() - since;
    if (StillWanted(next)) Compute(&next);
  });
}

// Looked at when a job leaves the queue: whether the caller has gone or its time is up.
bool RequestRun::StillWanted(const Admission::RunningTask& task) {
  if (!task.admitted().ok()) {
    Fail(task.admitted());
    return false;
  }
  if (!call_.cancelled() && std::chrono::system_clock::now() < deadline_) return true;
  Fail(call_.cancelled() || call_.DeadlinePassed()
           ? call_.CancelledStatus()
           : absl::DeadlineExceededError("the request's timeout passed before it could be computed"));
  return false;
}

MethodEntry MakeUnaryMethod(const RequestServices& services, RequestMethod method) {
  // One copy of the method, shared by its calls, rather than one of its decoder for each call.
  auto shared = std::make_shared<const RequestMethod>(std::move(method));
  return {.make_handler = [&services, shared] { return std::make_unique<UnaryCall>(services, *shared); },
          .request_method = shared};
}

}  // namespace attend::server
