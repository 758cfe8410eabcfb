// The named layers of a server: what a layer may be called, and the table that LayerService changes and Attend
// searches.
#ifndef ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_
#define ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "core/base/mutex.h"
#include "server/base/limits.h"

namespace attend::server {

class Layer;

// OK when `name` matches `[a-z0-9][a-z0-9._/-]{0,127}` and contains no `..`, no `//` and no `/` at its end. Errors:
// INVALID_ARGUMENT with `field`, which says what is wrong and shows no byte of `name` that is not plain ASCII.
absl::Status CheckLayerName(std::string_view name, std::string_view field);

// The part of it that needs no look at the name, for those who copy it only then: whether `bytes` are not too many.
absl::Status CheckLayerNameLength(std::size_t bytes, std::string_view field);

// Which layer of a server: names are the tenant's own.
struct LayerKey {
  std::string tenant;
  std::string name;
};

// The one file name that stands for a layer: its name with `%`, which no name contains, in place of `/`, and `.layer`
// behind it; before it the tenant and `@`, which no name contains, unless the tenant is `shared`: so the files that
// servers without tenants wrote are those of `shared`. It has no `/` and does not start with a dot, so that it is a
// file of its folder and no other. REQUIRES: CheckLayerName and CheckTenantName are OK.
std::string LayerFileName(const LayerKey& key);

// NOT_FOUND with reason LAYER_NOT_FOUND, `field`, and the name as metadata `layer_name`. REQUIRES: CheckLayerName is
// OK.
absl::Status LayerNotFound(std::string_view name, std::string_view field);

// Immutable values by name, which readers hold on to while writers replace them. Knows no rule about who may change
// what and no limit: those are LayerStore's.
//
// Thread-safe. The lock is held for a search or a change of the map alone: a value whose last owner is this table is
// destroyed by the caller of Put or Remove, outside of it.
template <typename T>
class NameTable {
 public:
  using Value = std::shared_ptr<const T>;

  // Null when there is none.
  Value Find(std::string_view name) const ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    const auto found = values_.find(name);
    return found == values_.end() ? nullptr : found->second;
  }

  // Returns what was there before, or null.
  Value Put(std::string_view name, Value value) ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    return std::exchange(values_[std::string(name)], std::move(value));
  }

  // Returns what was there, or null.
  Value Remove(std::string_view name) ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    const auto found = values_.find(name);
    if (found == values_.end()) return nullptr;
    Value value = std::move(found->second);
    values_.erase(found);
    return value;
  }

  // At most `most` values whose names start with `prefix` and are greater than `after`, in ascending order of the
  // names' bytes.
  std::vector<Value> Page(std::string_view prefix, std::string_view after, std::size_t most) const
      ABSL_LOCKS_EXCLUDED(mu_) {
    std::vector<Value> page;
    const MutexLock lock(mu_);
    auto at = after < prefix ? values_.lower_bound(prefix) : values_.upper_bound(after);
    for (; at != values_.end() && page.size() < most && at->first.compare(0, prefix.size(), prefix) == 0; ++at) {
      page.push_back(at->second);
    }
    return page;
  }

  std::size_t size() const ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    return values_.size();
  }

 private:
  mutable Mutex mu_;
  std::map<std::string, Value, std::less<>> values_ ABSL_GUARDED_BY(mu_);
};

// The layers of all tenants. A caller sees those of its own tenant and those of the tenant `shared`; of two with one
// name its own. Thread-safe, as NameTable.
class LayerRegistry {
 public:
  using Value = NameTable<Layer>::Value;

  // The layer that `name` stands for to callers of `tenant`; null when there is none.
  Value Resolve(std::string_view tenant, std::string_view name) const;
  // At most `most` of the layers that Resolve finds for `tenant`, as NameTable::Page.
  std::vector<Value> Page(std::string_view tenant, std::string_view prefix, std::string_view after,
                          std::size_t most) const;

  // Of exactly this tenant; as NameTable.
  Value Find(const LayerKey& key) const { return layers_.Find(TableName(key.tenant, key.name)); }
  Value Put(const LayerKey& key, Value layer) { return layers_.Put(TableName(key.tenant, key.name), std::move(layer)); }
  Value Remove(const LayerKey& key) { return layers_.Remove(TableName(key.tenant, key.name)); }
  // Of all tenants.
  std::size_t size() const { return layers_.size(); }

 private:
  // `tenant/name`: no tenant's name has a `/`.
  static std::string TableName(std::string_view tenant, std::string_view name);

  NameTable<Layer> layers_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_REGISTRY_H_
