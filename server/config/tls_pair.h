// The server's certificate and key, and its client authorities, as gRPC's file watcher reads them.
//
// gRPC 1.51 drops a good pair when it finds a bad one, and reads certificate and key from two files that somebody may
// be replacing. So it never sees the operator's files: they are read and checked here, and only what fits together is
// staged for it, certificate and key as one file in memory. A staged file is replaced by giving its descriptor another
// memory file (dup3), which is one step for whoever opens its path; no folder is written to, and no key reaches a disk.
#ifndef ATTEND_SERVER_CONFIG_TLS_PAIR_H_
#define ATTEND_SERVER_CONFIG_TLS_PAIR_H_

#include <atomic>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "server/config/revocation.h"
#include "server/config/server_config.h"

namespace attend::server {

// A file in memory with a path of this process. Thread-compatible.
class StagedFile {
 public:
  StagedFile() = default;
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;

  // Whoever opens the path sees the old contents or the new ones. The time of the new ones is later by at least a
  // second, which is what gRPC compares. Errors: INTERNAL.
  absl::Status Replace(const std::string& contents);
  // REQUIRES: Replace was called.
  std::string path() const;

 private:
  int fd_ = -1;
  std::time_t time_ = 0;
};

// Thread-safe.
class TlsPair {
 public:
  // Reads and checks the files. Errors: INVALID_ARGUMENT naming flag and file, see tls_files.h.
  static absl::StatusOr<std::shared_ptr<TlsPair>> Load(const TlsConfig& config);

  // For gRPC: certificate chain and key in one file, and the authorities.
  std::string identity_path() const { return identity_.path(); }
  std::string authorities_path() const { return authorities_.path(); }
  // The client certificates that are revoked; none without such a file.
  std::shared_ptr<const Revocations> revocations() const { return revocations_; }

  // When the certificate in the files expires, in seconds since 1970; 0 when the files cannot be used. As they were
  // when they were last looked at: who asks must not wait for a disk.
  std::int64_t Expiry() const { return expiry_.load(std::memory_order_relaxed); }

  // Looks at the files again: true when others are in force now. Errors: as Load; what was in force stays so.
  absl::StatusOr<bool> Reload() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  explicit TlsPair(const TlsConfig& config) : config_(config) {}

  const TlsConfig config_;
  std::atomic<std::int64_t> expiry_{0};
  Mutex mu_;
  std::string in_force_ ABSL_GUARDED_BY(mu_);  // Of all files.
  StagedFile identity_;
  StagedFile authorities_;
  const std::shared_ptr<Revocations> revocations_ = std::make_shared<Revocations>();
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_TLS_PAIR_H_
