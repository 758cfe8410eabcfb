#include "server/rpc/memory_budget.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

constexpr char kFlag[] = "--max-memory-in-flight-bytes";

// How long readers of answers take is not known; long enough that callers do not hammer a full server.
constexpr std::int64_t kRetryDelayMs = 250;

absl::Status OthersHold(std::int64_t others, std::int64_t wanted, std::int64_t limit) {
  return BusyError(
      reason::kMemoryBudget,
      absl::StrCat("other requests and responses in flight take ", others, " bytes and this one would take ", wanted,
                   ", but all together may take ", limit, " (", kFlag, ")"),
      kRetryDelayMs);
}

}  // namespace

void MemoryBudget::Reservation::ShrinkTo(std::int64_t bytes) {
  if (bytes >= bytes_) return;
  budget_->in_use_bytes_.fetch_sub(bytes_ - bytes, std::memory_order_relaxed);
  bytes_ = bytes;
}

absl::Status MemoryBudget::Reservation::Resize(double bytes) {
  if (absl::Status fits = budget_->CheckFits(bytes); !fits.ok()) return fits;
  const std::int64_t limit = budget_->limit_bytes_;
  const auto wanted = static_cast<std::int64_t>(bytes);
  std::int64_t in_use = budget_->in_use_bytes();
  do {
    const std::int64_t others = in_use - bytes_;
    if (wanted > bytes_ && wanted > limit - others) return OthersHold(others, wanted, limit);
  } while (!budget_->in_use_bytes_.compare_exchange_weak(in_use, in_use - bytes_ + wanted, std::memory_order_relaxed));
  bytes_ = wanted;
  return absl::OkStatus();
}

absl::Status MemoryBudget::CheckFits(double bytes) const {
  if (bytes <= static_cast<double>(limit_bytes_)) return absl::OkStatus();
  return LimitExceeded(kFlag, absl::StrFormat("the request and its response take %.0f bytes of memory, but this server "
                                              "has %d for all that is in flight (%s)",
                                              bytes, limit_bytes_, kFlag));
}

absl::StatusOr<MemoryBudget::Reservation> MemoryBudget::Reserve(double bytes) {
  Reservation reservation(*this);
  if (absl::Status taken = reservation.Resize(bytes); !taken.ok()) return taken;
  return reservation;
}

}  // namespace attend::server
