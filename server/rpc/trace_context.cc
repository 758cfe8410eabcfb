#include "server/rpc/trace_context.h"

#include <algorithm>
#include <cstddef>

namespace attend::server {
namespace {

constexpr std::size_t kMaxRequestIdBytes = 128;
constexpr std::string_view kForm = "00-00000000000000000000000000000000-0000000000000000-00";

bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool IsZero(std::string_view digits) { return digits.find_first_not_of('0') == std::string_view::npos; }

}  // namespace

bool IsRequestId(std::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestIdBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

bool IsTraceparent(std::string_view text) {
  if (text.size() != kForm.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (kForm[i] == '-' ? text[i] != '-' : !IsHex(text[i])) return false;
  }
  return text.substr(0, 2) != "ff" && !IsZero(text.substr(3, 32)) && !IsZero(text.substr(36, 16));
}

std::vector<LogField> TraceContext::With(std::vector<LogField> fields) const {
  if (!request_id.empty()) fields.push_back({"request_id", request_id});
  if (!traceparent.empty()) fields.push_back({"traceparent", traceparent});
  return fields;
}

TraceContext TraceContextOf(const InboundCall& call) {
  const std::string_view request_id = call.Metadata("x-request-id"), traceparent = call.Metadata("traceparent");
  TraceContext trace;
  if (IsRequestId(request_id)) trace.request_id = request_id;
  if (IsTraceparent(traceparent)) trace.traceparent = traceparent;
  return trace;
}

}  // namespace attend::server
