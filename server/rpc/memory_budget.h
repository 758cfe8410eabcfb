// The memory that all requests and responses in flight may take together.
//
// Admission bounds the work that waits, but a call's memory outlives its work: a response stays until the caller has
// read it, and a caller that never reads would keep it for as long as the connection lives. So each call reserves the
// bytes of its request before they are decoded, then what request and response take together, and gives all of it back
// when the response has been sent or the call has ended otherwise. Beyond the budget further calls are refused instead
// of the process being killed.
//
//   absl::StatusOr<MemoryBudget::Reservation> memory = budget.Reserve(request.Length());
//   if (!memory.ok()) return call.Finish(memory.status());
//   ... decode ...
//   if (absl::Status status = memory->Resize(job.memory_bytes()); !status.ok()) return call.Finish(status);
//
// Thread-safe; takes no lock unless it refuses or a caller holds more than a quarter. One Reservation is
// thread-compatible.
#ifndef ATTEND_SERVER_RPC_MEMORY_BUDGET_H_
#define ATTEND_SERVER_RPC_MEMORY_BUDGET_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/identity/tenant.h"
#include "server/rpc/shares.h"

namespace attend::server {

class MemoryBudget {
 public:
  // Who takes memory; for those who watch.
  enum class User : std::uint8_t { kRequests, kUploads };

  // A part of the budget, given back exactly once: at the owner's end, whichever way that comes. A default or
  // moved-from one holds nothing. Must not outlive the budget.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)),
          account_(std::move(other.account_)),
          user_(other.user_),
          bytes_(std::exchange(other.bytes_, 0)) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(account_, other.account_);
      std::swap(user_, other.user_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() { ShrinkTo(0); }

    std::int64_t bytes() const { return bytes_; }

    // Holds `bytes` from now on, more or fewer than before. Errors: those of Reserve; it then holds what it held.
    // REQUIRES: came from Reserve; bytes >= 0.
    absl::Status Resize(double bytes);

    // Gives back all but `bytes`; nothing when it holds no more than that. REQUIRES: bytes >= 0.
    void ShrinkTo(std::int64_t bytes);

   private:
    friend class MemoryBudget;
    Reservation(MemoryBudget& budget, AccountRef account, User user)
        : budget_(&budget), account_(std::move(account)), user_(user) {}
    // What the reservation may not grow beyond, whatever is left: errors of the tenant's quota and the caller's share.
    absl::Status TakeOwn(std::int64_t wanted);
    void Give(std::int64_t bytes);

    MemoryBudget* budget_ = nullptr;
    AccountRef account_;  // Null: of a caller of whom nothing is known.
    User user_ = User::kRequests;
    std::int64_t bytes_ = 0;
  };

  // `limit_bytes` is the value of --max-memory-in-flight-bytes; in [1, 2^62].
  explicit MemoryBudget(std::int64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // Takes `bytes` of what is left; zero bytes are always granted. Errors: RESOURCE_EXHAUSTED naming the flag when they
  // are more than the whole budget; UNAVAILABLE with reason MEMORY_BUDGET and a retry delay when others hold too much
  // of it, or when `account` would hold more than a quarter of it and others, with less, were refused a moment ago;
  // RESOURCE_EXHAUSTED with reason TENANT_QUOTA when the account's tenant would hold too much, with a retry delay
  // unless `bytes` alone are too many. In floating point because costs are (see Job::memory_bytes). REQUIRES: bytes >=
  // 0.
  absl::StatusOr<Reservation> Reserve(double bytes, AccountRef account = nullptr, User user = User::kRequests);

  // Whether `bytes` are granted when nobody else holds any. Errors: RESOURCE_EXHAUSTED, as Reserve.
  absl::Status CheckFits(double bytes) const;

  std::int64_t limit_bytes() const { return limit_bytes_; }
  // How often others held too much.
  std::int64_t refusals() const { return refusals_.load(std::memory_order_relaxed); }
  std::int64_t in_use_bytes() const { return in_use_bytes_.load(std::memory_order_relaxed); }
  std::int64_t in_use_bytes(User user) const {
    const std::int64_t uploads = uploads_bytes_.load(std::memory_order_relaxed);
    return user == User::kUploads ? uploads : std::max<std::int64_t>(in_use_bytes() - uploads, 0);
  }

 private:
  const std::int64_t limit_bytes_;
  std::atomic<std::int64_t> in_use_bytes_{0};   // In [0, limit_bytes_].
  std::atomic<std::int64_t> uploads_bytes_{0};  // Those of them that uploads hold; calls spare themselves a count.
  std::atomic<std::int64_t> refusals_{0};
  RefusedLately refused_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_MEMORY_BUDGET_H_
