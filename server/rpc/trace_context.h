// What a caller says of the request that its call is part of, for the log: `x-request-id` and W3C's `traceparent`
// (https://www.w3.org/TR/trace-context/). Looked for only where a line is written. Every line that is about one call
// has them by TraceContext::With; they are strangers' words, so that no metric has them, and nothing is counted by
// them.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_RPC_TRACE_CONTEXT_H_
#define ATTEND_SERVER_RPC_TRACE_CONTEXT_H_

#include <string>
#include <string_view>
#include <vector>

#include "server/base/logging.h"
#include "server/rpc/inbound_call.h"

namespace attend::server {

// Each is empty when the caller sent none, or one that is not well-formed.
struct TraceContext {
  std::string request_id;
  std::string traceparent;

  // The fields of a line and, behind them, `request_id` and `traceparent`, those that are not empty.
  std::vector<LogField> With(std::vector<LogField> fields) const;
};

TraceContext TraceContextOf(const InboundCall& call);

// 1 to 128 visible ASCII characters.
bool IsRequestId(std::string_view text);

// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`: version, trace, parent and flags in lower-case hexadecimal
// digits; neither version ff nor a trace or parent of zeros. Of later versions only this form is accepted.
bool IsTraceparent(std::string_view text);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_TRACE_CONTEXT_H_
