#include "server/rpc/cost_hint.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"

namespace attend::server {

std::optional<double> ParseCostHint(std::string_view text) {
  double flops = 0;
  if (!absl::SimpleAtod(absl::string_view(text.data(), text.size()), &flops)) return std::nullopt;
  if (!std::isfinite(flops) || flops < 0) return std::nullopt;
  return flops;
}

std::optional<double> CostHint(const grpc::ServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto hint = metadata.find(kCostHintKey);
  if (hint == metadata.end()) return std::nullopt;
  return ParseCostHint({hint->second.data(), hint->second.size()});
}

}  // namespace attend::server
