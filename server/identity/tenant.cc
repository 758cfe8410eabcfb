#include "server/identity/tenant.h"

#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

double Seconds(Tenant::Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

absl::Status CheckTenantName(std::string_view name) {
  const auto is_letter_or_digit = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool valid = !name.empty() && name.size() <= kMaxTenantNameBytes && name.front() != '-';
  for (const char c : name) valid = valid && (is_letter_or_digit(c) || c == '-');
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "a tenant's name has 1 to 63 characters, each of a-z, 0-9 and '-', the first a letter or digit");
}

void Tenant::SetLimits(const TenantLimits& limits) {
  const MutexLock lock(mu_);
  weight_.store(limits.weight, std::memory_order_relaxed);
  max_requests_.store(limits.max_requests_in_flight, std::memory_order_relaxed);
  max_memory_bytes_.store(limits.max_memory_in_flight_bytes, std::memory_order_relaxed);
  has_rate_.store(limits.max_compute_threads != HUGE_VAL, std::memory_order_relaxed);
  if (limits.max_compute_threads != limits_.max_compute_threads) credit_ = limits.max_compute_threads;
  limits_ = limits;
}

TenantLimits Tenant::limits() const {
  const MutexLock lock(mu_);
  return limits_;
}

void Tenant::Refill(Clock::time_point now) {
  if (refilled_ != Clock::time_point()) credit_ += limits_.max_compute_threads * Seconds(now - refilled_);
  credit_ = std::min(credit_, limits_.max_compute_threads);
  refilled_ = now;
}

Tenant::Clock::duration Tenant::ComputeDelay(Clock::time_point now) {
  if (!has_rate_.load(std::memory_order_relaxed)) return Clock::duration::zero();
  const MutexLock lock(mu_);
  Refill(now);
  if (credit_ > 0) return Clock::duration::zero();
  // No clock overflows: a day is more than any caller waits.
  constexpr double kMostSeconds = 86400;
  const double seconds = std::min(-credit_ / limits_.max_compute_threads, kMostSeconds);
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)) + Clock::duration(1);
}

void Tenant::Computed(Clock::duration took, bool waited, Clock::time_point now) {
  computed_.fetch_add(1, std::memory_order_relaxed);
  if (!waited) unqueued_.fetch_add(took.count(), std::memory_order_relaxed);
  UsedThread(took, now);
}

void Tenant::UsedThread(Clock::duration took, Clock::time_point now) {
  compute_time_.fetch_add(took.count(), std::memory_order_relaxed);
  if (!has_rate_.load(std::memory_order_relaxed)) return;
  const MutexLock lock(mu_);
  Refill(now);
  credit_ -= Seconds(took);
}

TenantRef Tenants::Get(const std::string& name) {
  const MutexLock lock(mu_);
  TenantRef& tenant = tenants_[name];
  if (tenant == nullptr) {
    tenant = std::make_shared<Tenant>(name);
    in_order_.push_back(tenant);
  }
  return tenant;
}

std::vector<TenantRef> Tenants::All() const {
  const MutexLock lock(mu_);
  return in_order_;
}

AccountRef Accounts::Get(const std::string& name, const TenantRef& tenant, bool exempt) {
  const MutexLock lock(mu_);
  std::weak_ptr<Account>& known = accounts_[name];
  AccountRef account = known.lock();
  // A principal may have been given another tenant.
  if (account == nullptr || account->tenant != tenant) {
    account = std::make_shared<Account>(name, tenant, exempt);
    known = account;
  }
  if (accounts_.size() >= clean_at_) {
    for (auto at = accounts_.begin(); at != accounts_.end();) {
      at = at->second.expired() ? accounts_.erase(at) : std::next(at);
    }
    clean_at_ = std::max<std::size_t>(2 * accounts_.size(), 64);
  }
  return account;
}

}  // namespace attend::server
