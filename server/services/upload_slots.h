// How many uploads may be under way, and who has to give way.
#ifndef ATTEND_SERVER_SERVICES_UPLOAD_SLOTS_H_
#define ATTEND_SERVER_SERVICES_UPLOAD_SLOTS_H_

#include <algorithm>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "core/base/mutex.h"
#include "server/rpc/call.h"
#include "server/rpc/server_timing.h"
#include "server/rpc/shares.h"

namespace attend::server {

// An upload has to send at a least rate, at which it may fall behind by kPatience. One that has fallen behind further
// keeps its slot until another needs it: then it is woken without a slot, and has to end. So slow or vanished callers
// cannot keep others out, whatever messages they send, and nobody needs a timer. One caller may have all slots; when a
// caller with less than a quarter of them wants another, the one with the most gives up its newest upload, if it has
// more than a quarter. An upload that is pinned cannot be given up: for some seconds after such a caller was refused,
// those that have a quarter get no more.
//
// Thread-safe.
class UploadSlots {
 public:
  static constexpr Clock::duration kPatience = std::chrono::seconds(10);

  // `max_uploads` is the value of --max-uploads, `min_bytes_per_second` that of --min-transfer-rate; at least 1. Tests
  // have less patience.
  UploadSlots(int max_uploads, std::int64_t min_bytes_per_second, Clock::duration patience = kPatience)
      : max_uploads_(max_uploads),
        min_bytes_per_second_(static_cast<double>(min_bytes_per_second)),
        patience_(patience) {}

  // Errors: UNAVAILABLE with reason TOO_MANY_UPLOADS and a retry delay. Else Release must follow. At most twice
  // `max_uploads` calls are between the two: those with a slot, and those that have lost theirs.
  absl::Status Acquire(Call& call) ABSL_LOCKS_EXCLUDED(mu_);
  // Notes that the upload has sent so many bytes.
  void Touch(Call& call, std::int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether this server reads nothing more of the upload for now; that is no falling behind.
  void SetPaused(Call& call, bool paused) ABSL_LOCKS_EXCLUDED(mu_);
  // Marks the upload as one that does not depend on its caller any more and keeps its slot.
  void Pin(Call& call) ABSL_LOCKS_EXCLUDED(mu_);
  // OK while the upload has its slot. Errors: UNAVAILABLE with reason UPLOAD_TOO_SLOW or TOO_MANY_UPLOADS.
  absl::Status WhyLost(Call& call) const ABSL_LOCKS_EXCLUDED(mu_);
  void Release(Call& call) ABSL_LOCKS_EXCLUDED(mu_);

  int max_uploads() const { return max_uploads_; }
  // Uploads that have a slot at the moment.
  int in_use() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Slot {
    CallRef call;
    Clock::time_point safe_until;  // max(): for ever.
    std::int64_t number;           // In the order in which they were acquired.
    bool paused = false;
  };
  using Slots = absl::flat_hash_map<Call*, Slot>;

  int share() const { return std::max(max_uploads_ / kShares, 1); }
  int CountOf(const Account* account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Frees the slot of the one that has fallen behind the furthest, if any has fallen behind.
  bool EvictSlowest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Frees one for a caller with less than its share, from the caller with the most.
  bool EvictFor(const Account* account) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Evict(Slots::iterator slot, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int max_uploads_;
  const double min_bytes_per_second_;
  const Clock::duration patience_;
  mutable Mutex mu_;
  Slots slots_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Call*, absl::Status> lost_ ABSL_GUARDED_BY(mu_);  // Until Release.
  std::int64_t next_number_ ABSL_GUARDED_BY(mu_) = 0;
  RefusedLately refused_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_UPLOAD_SLOTS_H_
