// What a caller says that its request costs, before the request itself is read.
//
// Metadata comes first, so a busy server can tell from it alone that a request would not be done in time, and spare
// both sides the payload. attend's own clients send the hint; others may. It is only that: what is computed, and every
// limit, goes by the decoded request, so a wrong hint gets nothing but its own caller refused, or let in as if there
// were none.
#ifndef ATTEND_SERVER_RPC_COST_HINT_H_
#define ATTEND_SERVER_RPC_COST_HINT_H_

#include <grpcpp/server_context.h>

#include <optional>
#include <string_view>

namespace attend::server {

// The metadata key. The value is a decimal number of floating-point operations, such as `1.3e9`: 2 (E + V) for each
// pair of query and key and head, and 2 for each weight of a projection and token.
inline constexpr char kCostHintKey[] = "attend-cost-flops";

// Nothing when `text` is not a finite number of at least 0.
std::optional<double> ParseCostHint(std::string_view text);

// The hint of a call that has arrived; nothing when it has none that can be read.
std::optional<double> CostHint(const grpc::ServerContext& context);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_COST_HINT_H_
