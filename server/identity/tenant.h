// A tenant: callers that share layers, and what they may use together. Others see none of its layers.
#ifndef ATTEND_SERVER_IDENTITY_TENANT_H_
#define ATTEND_SERVER_IDENTITY_TENANT_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "core/base/mutex.h"

namespace attend::server {

// The tenant whose layers every caller can use. Callers of whom nothing else is said belong to it.
inline constexpr char kSharedTenant[] = "shared";

inline constexpr std::size_t kMaxTenantNameBytes = 63;

// OK when `name` matches `[a-z0-9][a-z0-9-]{0,62}`: it has no character that separates it from a layer's name in a key
// or a file's name. Errors: INVALID_ARGUMENT.
absl::Status CheckTenantName(std::string_view name);

// What a tenant may use; set by the file of --principals.
struct TenantLimits {
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();

  double weight = 1;  // Of its compute time, when several tenants wait; in [0.001, 1000].
  std::int64_t max_requests_in_flight = kNone;
  std::int64_t max_memory_in_flight_bytes = kNone;
  double max_compute_threads = HUGE_VAL;  // Seconds of computing a second, over some seconds.
  std::int64_t max_layers_bytes = kNone;  // Memory of its layers.
};

// Shared by its principals, also by those of an older principals file. Thread-safe; what every request calls takes no
// lock unless a compute rate is set.
class Tenant {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Tenant(std::string name) : name_(std::move(name)) {}
  Tenant(const Tenant&) = delete;
  Tenant& operator=(const Tenant&) = delete;

  const std::string& name() const { return name_; }
  void SetLimits(const TenantLimits& limits) ABSL_LOCKS_EXCLUDED(mu_);
  TenantLimits limits() const ABSL_LOCKS_EXCLUDED(mu_);
  double weight() const { return weight_.load(std::memory_order_relaxed); }

  // A request begins; false when as many are in flight as may be, and then nothing is taken.
  bool TakeRequest() { return Take(requests_, 1, max_requests_); }
  void GiveRequest() { requests_.fetch_sub(1, std::memory_order_relaxed); }
  // The same for bytes of requests in flight.
  bool TakeMemory(std::int64_t bytes) { return Take(memory_bytes_, bytes, max_memory_bytes_); }
  std::int64_t max_memory_bytes() const { return max_memory_bytes_.load(std::memory_order_relaxed); }
  void GiveMemory(std::int64_t bytes) { memory_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  // Whether it has a compute rate; without one, ComputeDelay is zero.
  bool has_rate() const { return has_rate_.load(std::memory_order_relaxed); }
  // How long until its compute rate lets it begin again; zero: it may. A tenant may use what it has not used in the
  // last second before, and what runs too long is paid back by waiting.
  Clock::duration ComputeDelay(Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);
  // A request of it has computed for so long. `waited`: in the queue for compute threads, which counts it itself.
  void Computed(Clock::duration took, bool waited, Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);
  // It had a compute thread for so long, for a request that did not begin to compute: one that cannot be decoded.
  void UsedThread(Clock::duration took, Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);
  // What a polling thread works for a request that is refused, for the most part in gRPC: 66 us on a Xeon, 2026.
  static constexpr std::chrono::microseconds kRefusalTime{60};
  // A request was refused, by whatever limit: that is charged in the queue alone.
  void ChargeRefusal() { unqueued_.fetch_add(Clock::duration(kRefusalTime).count(), std::memory_order_relaxed); }
  // The time of threads that the queue has not counted since this was last asked.
  Clock::duration TakeUnqueued() { return Clock::duration(unqueued_.exchange(0, std::memory_order_relaxed)); }

  // A request was refused by a quota of this tenant.
  void Refused() {
    refusals_.fetch_add(1, std::memory_order_relaxed);
    ChargeRefusal();
  }

  // For those who watch.
  std::int64_t requests_in_flight() const { return requests_.load(std::memory_order_relaxed); }
  std::int64_t memory_bytes() const { return memory_bytes_.load(std::memory_order_relaxed); }
  std::int64_t refusals() const { return refusals_.load(std::memory_order_relaxed); }
  std::int64_t requests_computed() const { return computed_.load(std::memory_order_relaxed); }
  Clock::duration compute_time() const { return Clock::duration(compute_time_.load(std::memory_order_relaxed)); }

 private:
  static bool Take(std::atomic<std::int64_t>& held, std::int64_t wanted, const std::atomic<std::int64_t>& most) {
    std::int64_t others = held.load(std::memory_order_relaxed);
    do {
      if (wanted > most.load(std::memory_order_relaxed) - std::max<std::int64_t>(others, 0)) return false;
    } while (!held.compare_exchange_weak(others, others + wanted, std::memory_order_relaxed));
    return true;
  }
  void Refill(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string name_;
  std::atomic<double> weight_{1};
  std::atomic<std::int64_t> max_requests_{TenantLimits::kNone};
  std::atomic<std::int64_t> max_memory_bytes_{TenantLimits::kNone};
  std::atomic<bool> has_rate_{false};
  std::atomic<std::int64_t> requests_{0};
  std::atomic<std::int64_t> memory_bytes_{0};
  std::atomic<Clock::rep> unqueued_{0};
  std::atomic<Clock::rep> compute_time_{0};
  std::atomic<std::int64_t> computed_{0};
  std::atomic<std::int64_t> refusals_{0};

  mutable Mutex mu_;
  TenantLimits limits_ ABSL_GUARDED_BY(mu_);
  // Seconds of computing that it may begin with, negative when it owes some; full after a second without any.
  double credit_ ABSL_GUARDED_BY(mu_) = 0;
  Clock::time_point refilled_ ABSL_GUARDED_BY(mu_);
};
using TenantRef = std::shared_ptr<Tenant>;

// All tenants of a server, by name: one object for each name, whatever is read again. Thread-safe.
class Tenants {
 public:
  // REQUIRES: CheckTenantName is OK.
  TenantRef Get(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);
  // In the order in which they were first named, which never changes.
  std::vector<TenantRef> All() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable Mutex mu_;
  std::map<std::string, TenantRef> tenants_ ABSL_GUARDED_BY(mu_);
  std::vector<TenantRef> in_order_ ABSL_GUARDED_BY(mu_);
};

// What one caller holds of what all callers share. A caller is a principal or, where nobody says who calls, a peer's
// address. Thread-safe.
struct Account {
  Account(std::string caller, TenantRef owner, bool is_exempt)
      : name(std::move(caller)), tenant(std::move(owner)), exempt(is_exempt) {}

  const std::string name;
  const TenantRef tenant;  // Never null.
  const bool exempt;       // Many callers at once, which a trusted proxy does not tell apart: it has no share.
  std::atomic<std::int64_t> memory_bytes{0};
};
using AccountRef = std::shared_ptr<Account>;

// One account for each caller for as long as somebody holds it. Thread-safe.
class Accounts {
 public:
  AccountRef Get(const std::string& name, const TenantRef& tenant, bool exempt = false) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  Mutex mu_;
  std::map<std::string, std::weak_ptr<Account>> accounts_ ABSL_GUARDED_BY(mu_);
  std::size_t clean_at_ ABSL_GUARDED_BY(mu_) = 64;  // How many there may be before those without holders go.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_IDENTITY_TENANT_H_
