// The bytes that the data folder may take.
#ifndef ATTEND_SERVER_LAYER_STORE_DISK_QUOTA_H_
#define ATTEND_SERVER_LAYER_STORE_DISK_QUOTA_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend::server {

// Bytes are taken before they are written and given back when their file is gone. Thread-safe.
class DiskQuota {
 public:
  // `limit_bytes` is the value of --max-data-dir-bytes.
  explicit DiskQuota(std::int64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // Errors: RESOURCE_EXHAUSTED naming the flag; nothing is taken then. REQUIRES: bytes >= 0.
  absl::Status Take(std::int64_t bytes) {
    // Not added before it is compared: what is refused must not refuse others meanwhile.
    std::int64_t others = used_bytes_.load();
    do {
      if (bytes > limit_bytes_ - others) return IsUsed(bytes, others);
    } while (!used_bytes_.compare_exchange_weak(others, others + bytes));
    return absl::OkStatus();
  }
  // Counts what is there already, also beyond the limit.
  void Add(std::int64_t bytes) { used_bytes_.fetch_add(bytes); }
  void Give(std::int64_t bytes) { used_bytes_.fetch_sub(bytes); }

  std::int64_t used_bytes() const { return used_bytes_.load(); }

 private:
  absl::Status IsUsed(std::int64_t bytes, std::int64_t others) const {
    return LimitExceeded("--max-data-dir-bytes",
                         absl::StrCat("the layer needs ", bytes, " more bytes on the disk where ", others,
                                      " are taken, and this server's layers may take ", limit_bytes_,
                                      " there (--max-data-dir-bytes); delete a layer first"));
  }

  const std::int64_t limit_bytes_;
  std::atomic<std::int64_t> used_bytes_{0};
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_DISK_QUOTA_H_
