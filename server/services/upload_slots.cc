#include "server/services/upload_slots.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

constexpr std::int64_t kRetryDelayMs = 1000;

// More than any patience, and no clock overflows.
constexpr double kMostSeconds = 1e6;

}  // namespace

absl::Status UploadSlots::Acquire(Call& call) {
  const MutexLock lock(mu_);
  if (static_cast<int>(slots_.size()) >= max_uploads_ && !Evict()) {
    return BusyError(reason::kTooManyUploads,
                     absl::StrCat(max_uploads_,
                                  " uploads of layers are under way, which is as many as this server takes "
                                  "at a time (--max-uploads)"),
                     kRetryDelayMs);
  }
  slots_.insert_or_assign(&call, Slot{CallRef(call), Clock::now() + patience_});
  return absl::OkStatus();
}

bool UploadSlots::Evict() {
  const auto slowest = std::min_element(slots_.begin(), slots_.end(), [](const auto& a, const auto& b) {
    return a.second.safe_until < b.second.safe_until;
  });
  if (slowest == slots_.end() || slowest->second.safe_until > Clock::now()) return false;
  const CallRef call = slowest->second.call;
  slots_.erase(slowest);
  call->Wake();
  return true;
}

void UploadSlots::Touch(Call& call, std::int64_t bytes) {
  // Never more than it may fall behind: a fast beginning is no licence to be silent.
  const double seconds = std::min(static_cast<double>(bytes) / min_bytes_per_second_, kMostSeconds);
  const auto gained = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot == slots_.end()) return;
  slot->second.safe_until = std::min(slot->second.safe_until + gained, Clock::now() + patience_);
}

void UploadSlots::Pin(Call& call) {
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot != slots_.end()) slot->second.safe_until = Clock::time_point::max();
}

bool UploadSlots::Has(Call& call) const {
  const MutexLock lock(mu_);
  return slots_.contains(&call);
}

int UploadSlots::in_use() const {
  const MutexLock lock(mu_);
  return static_cast<int>(slots_.size());
}

void UploadSlots::Release(Call& call) {
  std::optional<CallRef> last;  // Perhaps the call's end, which is not for under the lock.
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot == slots_.end()) return;
  last = slot->second.call;
  slots_.erase(slot);
}

}  // namespace attend::server
