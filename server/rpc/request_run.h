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
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "core/kernels/instruction_set.h"
#include "server/rpc/admission.h"
#include "server/rpc/call.h"
#include "server/rpc/job.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// What all requests share. Outlives every call.
struct RequestServices {
  Admission* admission = nullptr;
  MemoryBudget* memory = nullptr;
  Limits limits;
  InstructionSet instruction_set = BestInstructionSet();
  // Jobs of at most so many floating-point operations run on the polling thread. Flag `--inline-flops`.
  double inline_flops = 4e6;
};

struct RequestMethod {
  Decoder decode;
  // Whether Admission may refuse it. Health and information are answered also by a busy server.
  bool refusable = true;
};

// Thread-compatible: one thread at a time has it, first the polling thread and then perhaps a compute thread.
class RequestRun {
 public:
  // Who started a run and is told how it ended: one of the two is called, once, by Start itself or on a compute thread.
  // It may destroy the run.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void OnResponse(const grpc::ByteBuffer& response) = 0;
    virtual void OnError(const absl::Status& status) = 0;
  };

  // All must outlive the run. While a compute thread has the run, it holds a CallRef of `call`.
  RequestRun(const RequestServices& services, const RequestMethod& method, Call& call, Owner& owner, CallTiming& timing)
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

 private:
  // Return false after telling the owner that the run cannot go on, which may have destroyed *this: touch no member
  // then.
  bool Reserve(std::size_t bytes);
  bool Decode(grpc::ByteBuffer& request);
  bool StillWanted();

  // On a compute thread with its task, or on the polling thread without one.
  void Compute(Admission::RunningTask* task);
  void SubmitRequest(grpc::ByteBuffer& request, std::optional<double> hinted_flops);
  void SubmitJob();
  WorkCost Cost() const { return {.flops = job_->flops(), .bytes = job_->memory_bytes()}; }

  const RequestServices& services_;
  const RequestMethod& method_;
  Call& call_;
  Owner& owner_;
  CallTiming& timing_;
  std::chrono::system_clock::time_point deadline_;
  MemoryBudget::Reservation memory_;
  std::unique_ptr<Job> job_;
};

// What every call is checked for before its request is decoded. Errors: RESOURCE_EXHAUSTED naming the flag.
absl::Status CheckRequestBytes(std::int64_t bytes, const Limits& limits);

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
