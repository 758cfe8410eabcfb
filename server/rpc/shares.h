// Shares of what all callers share: one caller may hold at most a quarter while others are refused, and everything
// while nobody else wants any.
#ifndef ATTEND_SERVER_RPC_SHARES_H_
#define ATTEND_SERVER_RPC_SHARES_H_

#include <chrono>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"
#include "server/identity/tenant.h"

namespace attend::server {

// A caller's share is one part of so many.
inline constexpr int kShares = 4;

// Who was refused a moment ago. What cannot be taken away from a caller who holds much goes to those who were refused
// as it is given back, because that caller gets no more meanwhile.
//
// Thread-safe.
class RefusedLately {
 public:
  using Clock = Tenant::Clock;

  // How long a refusal counts: longer than those who come back wait.
  static constexpr Clock::duration kMoment = std::chrono::seconds(5);

  // `caller` is any address that stands for it; it is not looked at.
  void Note(const void* caller, Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    if (caller != last_.caller) before_ = std::exchange(last_, Refusal{caller, now});
    last_.until = now + kMoment;
  }
  // Whether anybody but `caller` was.
  bool AreOthers(const void* caller, Clock::time_point now) const ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    const Refusal& other = last_.caller == caller ? before_ : last_;
    return other.caller != nullptr && other.caller != caller && now < other.until;
  }

 private:
  struct Refusal {
    const void* caller = nullptr;
    Clock::time_point until;
  };

  mutable Mutex mu_;
  // The last two callers that were refused: one of them is another than whoever asks.
  Refusal last_ ABSL_GUARDED_BY(mu_);
  Refusal before_ ABSL_GUARDED_BY(mu_);
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_SHARES_H_
