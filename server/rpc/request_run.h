// One request from its bytes to its response, whether it is a call of its own or one of many in a stream.
//
// Stations: reserve memory -> decode -> compute -> respond. Requests that are small in bytes and in arithmetic run to
// the end on the polling thread, because handing them to another thread would cost more than they do; all others decode
// or compute on the executor's threads. A run holds a part of the MemoryBudget from its start until it is destroyed,
// which is for its owner to do once nothing of the response is left to send.
#ifndef ATTEND_SERVER_RPC_REQUEST_RUN_H_
#define ATTEND_SERVER_RPC_REQUEST_RUN_H_

#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "core/kernels/fast_kernels.h"
#include "server/rpc/admission.h"
#include "server/rpc/call.h"
#include "server/rpc/inbound_call.h"
#include "server/rpc/job.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/server_timing.h"
#include "server/rpc/tenant_quota.h"

namespace attend::server {

// What a request computes, for those who watch.
enum class WorkKind : std::uint8_t { kControl, kAttend, kScaledDotProductAttention };

// A request that was computed, or that was stopped meanwhile.
struct ComputedRequest {
  WorkKind kind = WorkKind::kControl;
  double flops = 0;        // Job::flops.
  Clock::duration took{};  // From the start of the computation to its end.
  bool completed = false;
};

// What all requests share. Outlives every call.
struct RequestServices {
  Admission* admission = nullptr;
  MemoryBudget* memory = nullptr;
  Limits limits;
  KernelChoice kernels;
  // Jobs of at most so many floating-point operations run on the polling thread. Flag `--inline-flops`.
  double inline_flops = 4e6;
  // Told of each computation at its end, on the thread that did it. Empty: nobody. Must not block.
  std::function<void(const ComputedRequest&)> on_computed;
  // Told of each answer to a request of a stream, on the thread that made it. Empty: nobody. Must not block.
  std::function<void(const absl::Status&)> on_stream_answer;
};

// From what was sent to a serialized request; `sent` is empty afterwards. Errors: any.
using Transcoder = std::function<absl::StatusOr<grpc::ByteBuffer>(grpc::ByteBuffer& sent)>;

struct RequestMethod {
  Decoder decode;
  WorkKind kind = WorkKind::kControl;
  // Whether Admission may refuse it. Health and information are answered also by a busy server, unless they are too
  // long to decode at once.
  bool refusable = true;
  // Requests of more bytes are decoded on the executor's threads: gathering 64 KiB takes about as long as waking a
  // thread, and the polling thread has other calls to serve.
  std::size_t inline_decode_bytes = 64 << 10;
  // Bytes that decoding takes at most, for each byte of the request, before the decoder asks for more.
  double decode_memory = 1;
  // Bytes that an answer takes, for each byte of the response, until its owner gives some back (ShrinkMemoryTo).
  double answer_memory = 1;
  // Of requests that are sent in another form, before `decode`: what it returns has --max-request-bytes. Empty: they
  // are not.
  Transcoder transcode = nullptr;
};

// Thread-compatible: one thread at a time has it, first the polling thread and then perhaps a compute thread.
class RequestRun {
 public:
  // Who started a run and is told how it ended: one of the two is called, once, by Start itself or on a compute thread.
  // It may destroy the run.
  class Owner {
   public:
    virtual ~Owner() = default;
    // `now`: what the clock has just said.
    virtual void OnResponse(const grpc::ByteBuffer& response, Clock::time_point now) = 0;
    virtual void OnError(const absl::Status& status) = 0;
  };

  // All must outlive the run. While a compute thread has the run, it holds an InboundRef of `call`.
  RequestRun(const RequestServices& services, const RequestMethod& method, InboundCall& call, Owner& owner,
             CallTiming& timing)
      : services_(services), method_(method), call_(call), owner_(owner), timing_(timing) {}
  RequestRun(const RequestRun&) = delete;
  RequestRun& operator=(const RequestRun&) = delete;

  // Runs `request`, which is left empty. It does not start to compute after `deadline`, and stops when the call is
  // cancelled. `hinted_flops` is what the caller says that it costs, if anything; it serves until it is decoded.
  // REQUIRES: polling thread; called once.
  void Start(grpc::ByteBuffer& request, std::chrono::system_clock::time_point deadline,
             std::optional<double> hinted_flops = std::nullopt);

  // What it holds of the memory budget. REQUIRES: not started, or it has ended.
  std::int64_t memory_bytes() const { return memory_.bytes(); }
  // Gives back all but `bytes` of it. REQUIRES: called by OnResponse, by an owner that does not destroy the run there.
  void ShrinkMemoryTo(std::int64_t bytes) { memory_.ShrinkTo(bytes); }

 private:
  // Return false after telling the owner that the run cannot go on, which may have destroyed *this: touch no member
  // then.
  bool Reserve(std::size_t bytes);
  bool Decode(grpc::ByteBuffer& request);
  absl::Status Transcode(grpc::ByteBuffer& request) const;
  // What the job takes and, where its response is put in another form, what both take.
  double MemoryOf(const Job& job) const;
  bool StillWanted(const Admission::RunningTask& task);
  bool BeginForTenant();

  // On a compute thread with its task, or on the polling thread without one.
  void Compute(Admission::RunningTask* task);
  void SubmitRequest(grpc::ByteBuffer& request, std::optional<double> hinted_flops);
  void SubmitJob();
  void Respond(const grpc::ByteBuffer& response, Clock::time_point computed);
  // Tells the owner, who may destroy *this.
  void Fail(const absl::Status& status);
  bool PutBack(Admission::RunningTask& task);
  WorkCost Cost() const { return {.flops = job_->flops(), .bytes = job_->memory_bytes()}; }

  const RequestServices& services_;
  const RequestMethod& method_;
  InboundCall& call_;
  Owner& owner_;
  CallTiming& timing_;
  std::chrono::system_clock::time_point deadline_;
  Clock::time_point decoded_;     // When its decoding ended.
  TenantRequest tenant_request_;  // Until it is answered, whether or not the answer is read.
  MemoryBudget::Reservation memory_;
  std::unique_ptr<Job> job_;
};

// What every call is checked for before its request is decoded. Errors: RESOURCE_EXHAUSTED naming the flag.
absl::Status CheckRequestBytes(std::int64_t bytes, const Limits& limits);

// The one request of a unary call, whatever its transport: asked for before its payload is read, then run.
// Thread-compatible, as its RequestRun.
class UnaryRequest {
 public:
  // Both must outlive the object.
  UnaryRequest(const RequestServices& services, const RequestMethod& method) : services_(services), method_(method) {}

  // Whether `call` may send its payload. Errors: those of Admission. REQUIRES: called before Start, at most once.
  absl::Status Admit(const InboundCall& call);
  // Runs the payload, as RequestRun::Start. `call` owns this object.
  void Start(InboundCall& call, RequestRun::Owner& owner, grpc::ByteBuffer& request);
  // As RequestRun::ShrinkMemoryTo.
  void ShrinkMemoryTo(std::int64_t bytes) { run_->ShrinkMemoryTo(bytes); }

 private:
  const RequestServices& services_;
  const RequestMethod& method_;
  std::optional<double> hinted_flops_;
  // Destroyed when the call is deleted: then nothing of it is left to send.
  std::optional<RequestRun> run_;
};

// The table entry of a unary method: one request in, one response out. A call that may be refused is refused before its
// payload is read. `services` must outlive every call.
MethodEntry MakeUnaryMethod(const RequestServices& services, RequestMethod method);

// What decodes the requests that messages of a stream carry.
struct StreamMethods {
  RequestMethod attend;
  RequestMethod scaled_dot_product_attention;
};

// The table entry of a stream of requests: many in flight, answered as they finish. Finished responses wait in an
// outbox, since gRPC writes one message at a time, and keep their part of the MemoryBudget until they are written. A
// stream is read no further while
//   - `max_stream_requests_in_flight` of its requests are unanswered or not written yet, or
//   - half of the memory budget is taken and some of it by this stream, whose next response will look again.
// So a caller that does not read its responses is not read either, and what it may fill is bounded.
MethodEntry MakeStreamMethod(const RequestServices& services, StreamMethods methods);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_REQUEST_RUN_H_
