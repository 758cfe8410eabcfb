#include "server/services/upload_slots.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

constexpr std::int64_t kRetryDelayMs = 1000;

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
  slots_.insert_or_assign(&call, Slot{CallRef(call), Clock::now()});
  return absl::OkStatus();
}

bool UploadSlots::Evict() {
  const auto silent = std::min_element(slots_.begin(), slots_.end(), [](const auto& a, const auto& b) {
    return a.second.last_sent < b.second.last_sent;
  });
  if (silent == slots_.end() || silent->second.last_sent > Clock::now() - patience_) return false;
  const CallRef call = silent->second.call;
  slots_.erase(silent);
  call->Wake();
  return true;
}

void UploadSlots::Touch(Call& call) {
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot != slots_.end()) slot->second.last_sent = Clock::now();
}

void UploadSlots::Pin(Call& call) {
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot != slots_.end()) slot->second.last_sent = Clock::time_point::max();
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
