// The quotas of a tenant, as its requests meet them.
#ifndef ATTEND_SERVER_RPC_TENANT_QUOTA_H_
#define ATTEND_SERVER_RPC_TENANT_QUOTA_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/identity/tenant.h"

namespace attend::server {

// RESOURCE_EXHAUSTED with reason TENANT_QUOTA, the quota's name in the principals file as metadata, and a retry delay.
absl::Status QuotaError(const std::string& tenant, const char* quota, std::int64_t delay_ms);
// The same, and the tenant counts it.
absl::Status QuotaError(Tenant& tenant, const char* quota, std::int64_t delay_ms);

// Without a retry delay: `wanted` bytes alone are more than the `most` that the quota ever allows.
absl::Status BeyondQuota(const std::string& tenant, const char* quota, std::int64_t wanted, std::int64_t most);

// One request of a tenant while it is in flight. A default or moved-from one is nobody's. Must not outlive the tenant,
// which the account of its call holds. Thread-compatible.
class TenantRequest {
 public:
  TenantRequest() = default;
  TenantRequest(TenantRequest&& other) noexcept : tenant_(std::exchange(other.tenant_, nullptr)) {}
  TenantRequest& operator=(TenantRequest&& other) noexcept {
    std::swap(tenant_, other.tenant_);
    return *this;
  }
  ~TenantRequest() {
    if (tenant_ != nullptr) tenant_->GiveRequest();
  }

  // Whether a request of `account` may begin now, by its tenant's compute rate; null: always. Errors: QuotaError.
  static absl::Status CheckRate(const AccountRef& account);
  // Begins one. Errors: QuotaError for too many at a time, and those of CheckRate.
  static absl::StatusOr<TenantRequest> Begin(const AccountRef& account);

 private:
  explicit TenantRequest(Tenant& tenant) : tenant_(&tenant) {}

  Tenant* tenant_ = nullptr;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_TENANT_QUOTA_H_
