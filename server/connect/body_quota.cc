#include "server/connect/body_quota.h"

#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

constexpr std::int64_t kRetryDelayMs = 250;

absl::Status Busy(const char* why) { return BusyError(reason::kMemoryBudget, why, kRetryDelayMs); }

}  // namespace

absl::Status BodyQuota::CheckRoom(const Account* caller, std::int64_t held, double wanted, std::int64_t most,
                                  Clock::time_point now) {
  const std::int64_t share = most / kShares;
  const std::int64_t own = HeldBy(caller);
  const double own_then = static_cast<double>(own - held) + wanted;
  if (caller != nullptr && !caller->exempt && own_then > static_cast<double>(share) &&
      refused_.AreOthers(caller, now)) {
    return Busy("this caller's requests that are being read take its part of the memory, and others need the rest");
  }
  const std::int64_t others = held_ - held;
  if (others == 0 || static_cast<double>(others) + wanted <= static_cast<double>(most)) return absl::OkStatus();
  if (caller != nullptr && own <= share) refused_.Note(caller, now);
  return Busy("other requests that are being read take the memory that they may");
}

void BodyQuota::Add(const Account* caller, std::int64_t more) {
  if (more == 0) return;
  held_ += more;
  const auto own = by_caller_.try_emplace(caller, 0).first;
  own->second += more;
  if (own->second == 0) by_caller_.erase(own);
}

std::int64_t BodyQuota::HeldBy(const Account* caller) const {
  const auto own = by_caller_.find(caller);
  return own == by_caller_.end() ? 0 : own->second;
}

}  // namespace attend::server
