// How much memory layers take: counts that never wait for the disk.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_BYTES_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_BYTES_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"

namespace attend::server {

// Thread-safe. Its lock is held for a look at a map alone, because the one thread that answers /livez reads the counts
// for /metrics. LayerStore sees to it that nobody else raises them between its look at them and its change.
class LayerBytes {
  // What is held, in all and by tenant.
  class Taken {
   public:
    void Add(const std::string& tenant, std::int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_) {
      held_.fetch_add(bytes, std::memory_order_relaxed);
      const MutexLock lock(mu_);
      tenants_[tenant] += bytes;
    }
    std::int64_t held() const { return held_.load(std::memory_order_relaxed); }
    std::int64_t OfTenant(const std::string& tenant) const ABSL_LOCKS_EXCLUDED(mu_) {
      const MutexLock lock(mu_);
      const auto found = tenants_.find(tenant);
      return found == tenants_.end() ? 0 : found->second;
    }

   private:
    std::atomic<std::int64_t> held_{0};
    mutable Mutex mu_;
    absl::flat_hash_map<std::string, std::int64_t> tenants_ ABSL_GUARDED_BY(mu_);
  };

 public:
  // The bytes of a deleted layer, which count until its end; it may outlive the LayerBytes. A default or moved-from one
  // has none. Thread-compatible.
  class Left {
   public:
    Left() = default;
    Left(Left&& other) noexcept
        : taken_(std::move(other.taken_)), tenant_(std::move(other.tenant_)), bytes_(other.bytes_) {}
    Left& operator=(Left&& other) noexcept {
      std::swap(taken_, other.taken_);
      std::swap(tenant_, other.tenant_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Left() {
      if (taken_ != nullptr) taken_->Add(tenant_, -bytes_);
    }

   private:
    friend class LayerBytes;
    Left(std::shared_ptr<Taken> taken, std::string tenant, std::int64_t bytes)
        : taken_(std::move(taken)), tenant_(std::move(tenant)), bytes_(bytes) {}

    std::shared_ptr<Taken> taken_;
    std::string tenant_;
    std::int64_t bytes_ = 0;
  };

  // Of a tenant's layers: as held().
  std::int64_t OfTenant(const std::string& tenant) const { return taken_->OfTenant(tenant); }
  // Of the layers that can be called, of those being made, and of deleted ones that requests still use.
  std::int64_t held() const { return taken_->held(); }

  // A layer of `tenant` takes `bytes` more.
  void Take(const std::string& tenant, std::int64_t bytes) { taken_->Add(tenant, bytes); }
  // A layer was deleted. Its last user lets go of the result.
  Left Leave(const std::string& tenant, std::int64_t bytes) { return {taken_, tenant, bytes}; }

 private:
  const std::shared_ptr<Taken> taken_ = std::make_shared<Taken>();
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_BYTES_H_
