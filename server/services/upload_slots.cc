#include "server/services/upload_slots.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

constexpr std::int64_t kRetryDelayMs = 1000;

// More than any patience, and no clock overflows.
constexpr double kMostSeconds = 1e6;

absl::Status AllAreTaken(int max_uploads) {
  return BusyError(reason::kTooManyUploads,
                   absl::StrCat(max_uploads,
                                " uploads of layers are under way, which is as many as this server takes "
                                "at a time (--max-uploads)"),
                   kRetryDelayMs);
}

absl::Status ShareIsUsed() {
  return BusyError(reason::kTooManyUploads,
                   "this caller has as many uploads under way as its part (a quarter of --max-uploads), and others "
                   "need the rest",
                   kRetryDelayMs);
}

}  // namespace

absl::Status UploadSlots::Acquire(Call& call) {
  const Account* const account = call.account().get();
  const MutexLock lock(mu_);
  const Clock::time_point now = Clock::now();
  const bool has_share = account != nullptr && CountOf(account) >= share();
  if (has_share && !account->exempt && refused_.AreOthers(account, now)) return ShareIsUsed();
  const bool is_full = static_cast<int>(slots_.size()) >= max_uploads_;
  const bool may_evict = static_cast<int>(lost_.size()) < max_uploads_;
  if (is_full && !(may_evict && (EvictSlowest() || EvictFor(account)))) {
    if (account != nullptr && !has_share) refused_.Note(account, now);
    return AllAreTaken(max_uploads_);
  }
  slots_.insert_or_assign(&call, Slot{CallRef(call), now + patience_, next_number_++});
  return absl::OkStatus();
}

int UploadSlots::CountOf(const Account* account) const {
  return static_cast<int>(std::count_if(
      slots_.begin(), slots_.end(), [account](const auto& slot) { return slot.first->account().get() == account; }));
}

bool UploadSlots::EvictSlowest() {
  const auto slowest = std::min_element(slots_.begin(), slots_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.paused, a.second.safe_until) < std::pair(b.second.paused, b.second.safe_until);
  });
  if (slowest == slots_.end() || slowest->second.paused || slowest->second.safe_until > Clock::now()) return false;
  Evict(slowest, BusyError(reason::kUploadTooSlow,
                           "the upload sent less than --min-transfer-rate and others were waiting for its place",
                           kRetryDelayMs));
  return true;
}

bool UploadSlots::EvictFor(const Account* account) {
  if (account == nullptr) return false;
  absl::flat_hash_map<const Account*, int> counts;
  for (const auto& [call, slot] : slots_) ++counts[call->account().get()];
  if (counts[account] >= share()) return false;
  auto newest = slots_.end();
  for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
    const Account* const holder = slot->first->account().get();
    const bool is_pinned = slot->second.safe_until == Clock::time_point::max();
    if (holder == nullptr || holder->exempt || is_pinned || counts[holder] <= share()) continue;
    const auto rank = [&](const Slots::iterator& at) {
      return std::pair(counts[at->first->account().get()], at->second.number);
    };
    if (newest == slots_.end() || rank(newest) < rank(slot)) newest = slot;
  }
  if (newest == slots_.end()) return false;
  Evict(newest, BusyError(reason::kTooManyUploads,
                          "this caller had more uploads under way than its part (a quarter of --max-uploads), which "
                          "others need",
                          kRetryDelayMs));
  return true;
}

void UploadSlots::Evict(Slots::iterator slot, const absl::Status& why) {
  const CallRef call = slot->second.call;
  slots_.erase(slot);
  lost_.insert_or_assign(&*call, why);
  call->Wake();
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

void UploadSlots::SetPaused(Call& call, bool paused) {
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot == slots_.end()) return;
  slot->second.paused = paused;
  if (!paused) slot->second.safe_until = Clock::now() + patience_;
}

void UploadSlots::Pin(Call& call) {
  const MutexLock lock(mu_);
  const auto slot = slots_.find(&call);
  if (slot != slots_.end()) slot->second.safe_until = Clock::time_point::max();
}

absl::Status UploadSlots::WhyLost(Call& call) const {
  const MutexLock lock(mu_);
  const auto lost = lost_.find(&call);
  return lost == lost_.end() ? absl::OkStatus() : lost->second;
}

int UploadSlots::in_use() const {
  const MutexLock lock(mu_);
  return static_cast<int>(slots_.size());
}

void UploadSlots::Release(Call& call) {
  std::optional<CallRef> last;  // Perhaps the call's end, which is not for under the lock.
  const MutexLock lock(mu_);
  lost_.erase(&call);
  const auto slot = slots_.find(&call);
  if (slot == slots_.end()) return;
  last = slot->second.call;
  slots_.erase(slot);
}

}  // namespace attend::server
