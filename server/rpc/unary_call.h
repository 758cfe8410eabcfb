// The handler of every unary method: one request in, a Job, one response out.
//
// Stations: admit (before the payload is read) -> read -> decode -> compute -> respond. Requests that are small in
// bytes and in arithmetic run to the end on the polling thread, because handing them to another thread would cost more
// than they do; all others decode or compute on the executor's threads. From its request's arrival on a call holds a
// part of the MemoryBudget, until its response has been sent or it has ended otherwise.
#ifndef ATTEND_SERVER_RPC_UNARY_CALL_H_
#define ATTEND_SERVER_RPC_UNARY_CALL_H_

#include <cstddef>
#include <memory>

#include "core/kernels/instruction_set.h"
#include "server/job.h"
#include "server/rpc/admission.h"
#include "server/rpc/call.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/method_table.h"

namespace attend::server {

// What all unary calls share. Outlives every call.
struct UnaryServices {
  Admission* admission = nullptr;
  MemoryBudget* memory = nullptr;
  Limits limits;
  InstructionSet instruction_set = BestInstructionSet();
  // Jobs of at most so many floating-point operations run on the polling thread. Flag `--inline-flops`.
  double inline_flops = 4e6;
};

struct UnaryMethod {
  Decoder decode;
  // Whether Admission may refuse it. Health and information are answered also by a busy server.
  bool refusable = true;
};

// A table entry for `method`. `services` must outlive every call.
Method MakeUnaryMethod(const UnaryServices& services, UnaryMethod method);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_UNARY_CALL_H_
