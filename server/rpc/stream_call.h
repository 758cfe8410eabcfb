// The handler of streams of requests: many in flight, answered as they finish.
//
// Each message is read when there is room for it, and then runs as a unary call's request would (RequestRun): small
// ones at once on the polling thread, large ones on the executor's threads. Finished ones wait in an outbox, since gRPC
// writes one message at a time, and keep their part of the MemoryBudget until they are written. A stream is read no
// further while
//   - `max_stream_requests_in_flight` of its requests are unanswered or not written yet, or
//   - half of the memory budget is taken and some of it by this stream, whose next answer will look again.
// So a caller that does not read its answers is not read either, and what it may fill is bounded.
#ifndef ATTEND_SERVER_RPC_STREAM_CALL_H_
#define ATTEND_SERVER_RPC_STREAM_CALL_H_

#include "server/rpc/method_table.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// The table entry of StreamAttend; `method` decodes what its messages carry. `services` must outlive every call.
Method MakeStreamMethod(const RequestServices& services, RequestMethod method);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_STREAM_CALL_H_
