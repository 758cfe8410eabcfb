#include "server/rpc/tenant_quota.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// How long requests take is not known; long enough that callers do not hammer.
constexpr std::int64_t kRetryDelayMs = 100;

}  // namespace

absl::Status QuotaError(Tenant& tenant, const char* quota, std::int64_t delay_ms) {
  tenant.Refused();
  return QuotaError(tenant.name(), quota, delay_ms);
}

absl::Status QuotaError(const std::string& tenant, const char* quota, std::int64_t delay_ms) {
  return WithDetails(
      absl::ResourceExhaustedError(absl::StrCat("the tenant '", tenant, "' has used up its ", quota,
                                                " (--principals); come back later or send less at a time")),
      {.reason = reason::kTenantQuota,
       .field = "",
       .metadata = {{"quota", quota}, {kRetryDelayKey, absl::StrCat(delay_ms)}}});
}

absl::Status BeyondQuota(const std::string& tenant, const char* quota, std::int64_t wanted, std::int64_t most) {
  return WithDetails(
      absl::ResourceExhaustedError(absl::StrCat("this takes ", wanted, " bytes, and the tenant '", tenant, "' has ",
                                                most, " in all (", quota, ", --principals)")),
      {.reason = reason::kTenantQuota, .field = "", .metadata = {{"quota", quota}}});
}

absl::Status TenantRequest::CheckRate(const AccountRef& account) {
  if (account == nullptr || !account->tenant->has_rate()) return absl::OkStatus();
  const Tenant::Clock::duration delay = account->tenant->ComputeDelay(Tenant::Clock::now());
  if (delay == Tenant::Clock::duration::zero()) return absl::OkStatus();
  const std::int64_t ms = std::chrono::ceil<std::chrono::milliseconds>(delay).count();
  return QuotaError(*account->tenant, "max_compute_threads", ms);
}

absl::StatusOr<TenantRequest> TenantRequest::Begin(const AccountRef& account) {
  if (account == nullptr) return TenantRequest();
  if (absl::Status rate = CheckRate(account); !rate.ok()) return rate;
  if (!account->tenant->TakeRequest()) return QuotaError(*account->tenant, "max_requests_in_flight", kRetryDelayMs);
  return TenantRequest(*account->tenant);
}

}  // namespace attend::server
