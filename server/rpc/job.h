// One admitted request as data: what the codec makes of its bytes, what the executor computes, what is sent back.
//
// The stations of a request (ARCHITECTURE.md, "The life of a request") pass a Job forward: a decoder reads the bytes
// and checks every rule once; the executor calls Compute; the transport takes the response. Nothing flows back.
//
// Thread-compatible: one station owns a job at a time.
#ifndef ATTEND_SERVER_RPC_JOB_H_
#define ATTEND_SERVER_RPC_JOB_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/compute/context.h"

namespace attend::server {

// What a request may cost; each is set by the flag of the same name and reported by GetServerInfo.
struct Limits {
  std::int64_t max_request_bytes = std::int64_t{256} << 20;
  std::int64_t max_response_bytes = std::int64_t{256} << 20;
  double max_request_flops = 1e14;
  std::int64_t max_request_memory_bytes = std::int64_t{2} << 30;
  int max_queued_requests = 64;
  std::int64_t max_memory_in_flight_bytes = std::int64_t{4} << 30;  // Of all requests and responses together.
  int max_stream_requests_in_flight = 64;                           // Of one stream.
  int num_threads = 1;  // Not a limit: each compute thread takes memory of its own for a request. Flag `--threads`.
};

class Job {
 public:
  virtual ~Job() = default;

  // An upper bound of the arithmetic, in floating-point operations; decides where the job runs.
  virtual double flops() const = 0;

  // Whether Compute may wait, for a disk say: then it never runs on a polling thread.
  virtual bool may_wait() const { return false; }

  // An upper bound of the memory that the request and its response take, scratch included, in bytes. Once the response
  // is taken, its own bytes are what is left of it.
  virtual double memory_bytes() const = 0;

  // Computes the response. Errors: CANCELLED when the context's flag was raised. REQUIRES: called at most once.
  virtual absl::Status Compute(const ComputeContext& context) = 0;

  // The serialized response message, valid after Compute returned OK. REQUIRES: called at most once.
  virtual grpc::ByteBuffer TakeResponse() = 0;
};

// Reads one serialized request message. Errors: INVALID_ARGUMENT with the field, RESOURCE_EXHAUSTED with the
// flag. Allocates nothing in proportion to what the request claims before every claim is checked against `limits` and
// against the bytes that are really there. Thread-safe.
using Decoder =
    std::function<absl::StatusOr<std::unique_ptr<Job>>(const grpc::ByteBuffer& request, const Limits& limits)>;

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_JOB_H_
