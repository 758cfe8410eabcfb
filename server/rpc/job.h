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
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/compute/context.h"
#include "server/base/limits.h"
#include "server/identity/tenant.h"

namespace attend::server {

class Job {
 public:
  virtual ~Job() = default;

  // An upper bound of the arithmetic, in floating-point operations; decides where the job runs.
  virtual double flops() const = 0;

  // An upper bound of the memory that the request and its response take, scratch included, in bytes. Once the response
  // is taken, its own bytes are what is left of it.
  virtual double memory_bytes() const = 0;

  // An upper bound of the response's bytes.
  virtual double response_bytes() const { return memory_bytes(); }

  // Computes the response. Errors: CANCELLED when the context's flag was raised. REQUIRES: called at most once.
  virtual absl::Status Compute(const ComputeContext& context) = 0;

  // The serialized response message, valid after Compute returned OK. REQUIRES: called at most once.
  virtual grpc::ByteBuffer TakeResponse() = 0;
};

// Memory without a budget.
inline absl::Status TakeAnyMemory(double /*bytes*/) { return absl::OkStatus(); }

// For whom a request is read: by which limits, and for which tenant's caller, which decides what a layer's name stands
// for. Views; a decoder keeps none of it.
struct DecodeContext {
  using TakeMemory = absl::FunctionRef<absl::Status(double bytes)>;

  // NOLINTNEXTLINE(google-explicit-constructor): limits alone are those of a caller of whom nothing is known.
  DecodeContext(const Limits& server_limits, std::string_view caller_tenant = kSharedTenant,
                TakeMemory take = TakeAnyMemory)
      : limits(server_limits), tenant(caller_tenant), take_memory(take) {}

  const Limits& limits;
  std::string_view tenant;
  // Asked before memory is taken, with all bytes that the request takes from then on; what was asked for before is
  // among them. For lists these are the request's own and theirs, for tensors the job's memory_bytes(). Errors: those
  // of a memory budget.
  TakeMemory take_memory;
};

// Reads one serialized request message. Errors: INVALID_ARGUMENT with the field, RESOURCE_EXHAUSTED with the
// flag. Allocates nothing in proportion to what the request claims before every claim is checked against the limits and
// against the bytes that are really there. Thread-safe.
using Decoder =
    std::function<absl::StatusOr<std::unique_ptr<Job>>(const grpc::ByteBuffer& request, const DecodeContext& context)>;

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_JOB_H_
