// What a request will cost the server, told in metadata so that a busy one can refuse it before it is sent.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_COST_HINT_H_
#define ATTEND_CLIENT_LIB_COST_HINT_H_

#include <optional>
#include <string>

#include "attend/v1/attention_service.pb.h"

namespace attend::client {

// The metadata key that attend-server looks at.
inline constexpr char kCostHintKey[] = "attend-cost-flops";

// The value for a request: its floating-point operations, by its shapes, causality, windows and lengths, counted as the
// server counts them, because it refuses by them. Nothing where they do not make sense. Of a named layer, whose heads,
// projections, mask and window only the server knows, the attention alone, and nothing unless that is small: the server
// then decides when it has read the request.
std::optional<std::string> CostHint(const v1::AttendRequest& request);
std::optional<std::string> CostHint(const v1::ScaledDotProductAttentionRequest& request);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_COST_HINT_H_
