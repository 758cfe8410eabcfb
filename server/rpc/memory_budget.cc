#include "server/rpc/memory_budget.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"
#include "server/rpc/tenant_quota.h"

namespace attend::server {
namespace {

constexpr char kFlag[] = "--max-memory-in-flight-bytes";
constexpr char kTenantMemory[] = "max_memory_in_flight_bytes";

// How long readers of answers take is not known; long enough that callers do not hammer a full server.
constexpr std::int64_t kRetryDelayMs = 250;

absl::Status OthersHold(std::int64_t others, std::int64_t wanted, std::int64_t limit) {
  return BusyError(
      reason::kMemoryBudget,
      absl::StrCat("other requests and responses in flight take ", others, " bytes and this one would take ", wanted,
                   ", but all together may take ", limit, " (", kFlag, ")"),
      kRetryDelayMs);
}

absl::Status ShareIsUsed(std::int64_t held, std::int64_t share) {
  return BusyError(
      reason::kMemoryBudget,
      absl::StrCat("this caller's requests and responses would take ", held,
                   " bytes; while others need memory, one caller may take ", share, " (a quarter of ", kFlag, ")"),
      kRetryDelayMs);
}

}  // namespace

void MemoryBudget::Reservation::Give(std::int64_t bytes) {
  if (account_ == nullptr) return;
  account_->memory_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  account_->tenant->GiveMemory(bytes);
}

void MemoryBudget::Reservation::ShrinkTo(std::int64_t bytes) {
  if (bytes >= bytes_) return;
  budget_->in_use_bytes_.fetch_sub(bytes_ - bytes, std::memory_order_relaxed);
  if (user_ == User::kUploads) budget_->uploads_bytes_.fetch_sub(bytes_ - bytes, std::memory_order_relaxed);
  Give(bytes_ - bytes);
  bytes_ = bytes;
}

absl::Status MemoryBudget::Reservation::TakeOwn(std::int64_t wanted) {
  if (account_ == nullptr) return absl::OkStatus();
  const std::int64_t more = wanted - bytes_;
  const std::int64_t share = budget_->limit_bytes_ / kShares;
  const std::int64_t held = account_->memory_bytes.fetch_add(more, std::memory_order_relaxed) + more;
  if (held > share && !account_->exempt && budget_->refused_.AreOthers(account_.get(), Tenant::Clock::now())) {
    account_->memory_bytes.fetch_sub(more, std::memory_order_relaxed);
    budget_->refusals_.fetch_add(1, std::memory_order_relaxed);
    account_->tenant->ChargeRefusal();
    return ShareIsUsed(held, share);
  }
  if (account_->tenant->TakeMemory(more)) return absl::OkStatus();
  account_->memory_bytes.fetch_sub(more, std::memory_order_relaxed);
  Tenant& tenant = *account_->tenant;
  if (wanted <= tenant.max_memory_bytes()) return QuotaError(tenant, kTenantMemory, kRetryDelayMs);
  tenant.Refused();
  return BeyondQuota(tenant.name(), kTenantMemory, wanted, tenant.max_memory_bytes());
}

absl::Status MemoryBudget::Reservation::Resize(double bytes) {
  if (absl::Status fits = budget_->CheckFits(bytes); !fits.ok()) return fits;
  const std::int64_t limit = budget_->limit_bytes_;
  const auto wanted = static_cast<std::int64_t>(bytes);
  if (wanted <= bytes_) {
    ShrinkTo(wanted);
    return absl::OkStatus();
  }
  if (absl::Status own = TakeOwn(wanted); !own.ok()) return own;
  std::int64_t in_use = budget_->in_use_bytes();
  do {
    const std::int64_t others = in_use - bytes_;
    if (wanted > limit - others) {
      budget_->refusals_.fetch_add(1, std::memory_order_relaxed);
      if (account_ != nullptr) {
        account_->tenant->ChargeRefusal();
        const std::int64_t held = account_->memory_bytes.load(std::memory_order_relaxed);
        if (held <= limit / kShares) budget_->refused_.Note(account_.get(), Tenant::Clock::now());
      }
      Give(wanted - bytes_);
      return OthersHold(others, wanted, limit);
    }
  } while (!budget_->in_use_bytes_.compare_exchange_weak(in_use, in_use - bytes_ + wanted, std::memory_order_relaxed));
  if (user_ == User::kUploads) budget_->uploads_bytes_.fetch_add(wanted - bytes_, std::memory_order_relaxed);
  bytes_ = wanted;
  return absl::OkStatus();
}

absl::Status MemoryBudget::CheckFits(double bytes) const {
  if (bytes <= static_cast<double>(limit_bytes_)) return absl::OkStatus();
  return LimitExceeded(kFlag, absl::StrFormat("this takes %.0f bytes of memory, but this server "
                                              "has %d for all that is in flight (%s)",
                                              bytes, limit_bytes_, kFlag));
}

absl::StatusOr<MemoryBudget::Reservation> MemoryBudget::Reserve(double bytes, AccountRef account, User user) {
  Reservation reservation(*this, std::move(account), user);
  if (absl::Status taken = reservation.Resize(bytes); !taken.ok()) return taken;
  return reservation;
}

}  // namespace attend::server
