// The handler of every unary method: one request in, one response out.
//
// Stations: admit (before the payload is read) -> read -> run (RequestRun). From its request's arrival on a call holds
// a part of the MemoryBudget, until its response has been sent or it has ended otherwise.
#ifndef ATTEND_SERVER_RPC_UNARY_CALL_H_
#define ATTEND_SERVER_RPC_UNARY_CALL_H_

#include "server/rpc/method_table.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// A table entry for `method`. `services` must outlive every call.
Method MakeUnaryMethod(const RequestServices& services, RequestMethod method);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_UNARY_CALL_H_
