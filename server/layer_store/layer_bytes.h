// How much memory layers take: counts that never wait for the disk.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_BYTES_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_BYTES_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"

namespace attend::server {

// Thread-safe. Its lock is held for a look at a map alone, because the one thread that answers /livez reads the counts
// for /metrics. LayerStore sees to it that nobody else raises them between its look at them and its change.
class LayerBytes {
 public:
  // Of the layers that can be called.
  std::int64_t registered() const { return registered_.load(std::memory_order_relaxed); }
  // Of a tenant's layers, those being made included.
  std::int64_t OfTenant(const std::string& tenant) const ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    const auto found = tenants_.find(tenant);
    return found == tenants_.end() ? 0 : found->second;
  }
  // Of the layers that can be called, of those being made, and of deleted ones that requests still use.
  std::int64_t held() const { return held_->load(std::memory_order_relaxed); }

  // A layer of `tenant` takes `bytes` more.
  void Take(const std::string& tenant, std::int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_) {
    AddToTenant(tenant, bytes);
    held_->fetch_add(bytes, std::memory_order_relaxed);
  }
  // So many of what was taken belong to layers that can be called now.
  void Register(std::int64_t bytes) { registered_.fetch_add(bytes, std::memory_order_relaxed); }
  // A layer was deleted. Returns where its bytes count on until its user gives them back, which may outlive this.
  std::shared_ptr<std::atomic<std::int64_t>> Leave(const std::string& tenant, std::int64_t bytes)
      ABSL_LOCKS_EXCLUDED(mu_) {
    Register(-bytes);
    AddToTenant(tenant, -bytes);
    return held_;
  }

 private:
  void AddToTenant(const std::string& tenant, std::int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    tenants_[tenant] += bytes;
  }

  std::atomic<std::int64_t> registered_{0};
  const std::shared_ptr<std::atomic<std::int64_t>> held_ = std::make_shared<std::atomic<std::int64_t>>(0);
  mutable Mutex mu_;
  absl::flat_hash_map<std::string, std::int64_t> tenants_ ABSL_GUARDED_BY(mu_);
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_BYTES_H_
