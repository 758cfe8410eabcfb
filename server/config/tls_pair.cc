#include "server/config/tls_pair.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/files/tls_files.h"

namespace attend::server {
namespace {

struct Contents {
  std::string identity;
  std::string authorities;                // Empty without mTLS.
  std::optional<RevocationList> revoked;  // Of the file whose text is `revoked_text`, if there is one.
  std::string revoked_text;
  std::int64_t expiry = 0;  // Of the certificate, in seconds since 1970.
};

absl::StatusOr<Contents> ReadAndCheck(const TlsConfig& config) {
  const absl::StatusOr<PemFile> chain = ReadPemFile("--tls-cert", config.certificate_path);
  if (!chain.ok()) return chain.status();
  const absl::StatusOr<PemFile> key = ReadPemFile("--tls-key", config.key_path);
  if (!key.ok()) return key.status();
  if (absl::Status usable = CheckIdentity(*chain, *key); !usable.ok()) return usable;
  const absl::StatusOr<std::int64_t> expiry = CertificateExpiry(*chain);
  if (!expiry.ok()) return expiry.status();
  Contents contents{.identity = absl::StrCat(chain->contents, "\n", key->contents),
                    .authorities = "",
                    .revoked = std::nullopt,
                    .revoked_text = "",
                    .expiry = *expiry};
  if (config.client_ca_path.empty()) return contents;
  const absl::StatusOr<PemFile> authorities = ReadPemFile("--tls-client-ca", config.client_ca_path);
  if (!authorities.ok()) return authorities.status();
  if (absl::Status usable = CheckAuthorities(*authorities); !usable.ok()) return usable;
  contents.authorities = authorities->contents;
  if (config.client_crl_path.empty()) return contents;
  absl::StatusOr<PemFile> lists = ReadPemFile("--tls-client-crl", config.client_crl_path);
  if (!lists.ok()) return lists.status();
  absl::StatusOr<RevocationList> revoked = RevocationList::Read(*lists, *authorities);
  if (!revoked.ok()) return revoked.status();
  contents.revoked = *std::move(revoked);
  contents.revoked_text = std::move(lists->contents);
  return contents;
}

bool WriteAll(int fd, const std::string& contents) {
  for (std::size_t done = 0; done < contents.size();) {
    const ssize_t written = write(fd, contents.data() + done, contents.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    done += static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace

StagedFile::~StagedFile() {
  if (fd_ >= 0) close(fd_);
}

std::string StagedFile::path() const { return absl::StrCat("/proc/self/fd/", fd_); }

absl::Status StagedFile::Replace(const std::string& contents) {
  const int fd = memfd_create("attend-tls", MFD_CLOEXEC);
  const auto failed = [&fd] {
    const std::string why = std::strerror(errno);
    if (fd >= 0) close(fd);
    return absl::InternalError(absl::StrCat("cannot keep TLS files in memory: ", why));
  };
  time_ = std::max(std::time(nullptr), time_ + 1);
  const timespec times[] = {{.tv_sec = time_, .tv_nsec = 0}, {.tv_sec = time_, .tv_nsec = 0}};
  if (fd < 0 || !WriteAll(fd, contents) || futimens(fd, times) != 0) return failed();
  if (fd_ < 0) {
    fd_ = fd;
    return absl::OkStatus();
  }
  if (dup3(fd, fd_, O_CLOEXEC) < 0) return failed();
  close(fd);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<TlsPair>> TlsPair::Load(const TlsConfig& config) {
  std::shared_ptr<TlsPair> pair(new TlsPair(config));
  const absl::StatusOr<bool> loaded = pair->Reload();
  if (!loaded.ok()) return loaded.status();
  return pair;
}

absl::StatusOr<bool> TlsPair::Reload() {
  const absl::StatusOr<Contents> contents = ReadAndCheck(config_);
  expiry_.store(contents.ok() ? contents->expiry : 0, std::memory_order_relaxed);
  if (!contents.ok()) return contents.status();
  const std::string all = absl::StrCat(contents->identity, contents->authorities, contents->revoked_text);
  const MutexLock lock(mu_);
  if (all == in_force_) return false;
  if (absl::Status staged = identity_.Replace(contents->identity); !staged.ok()) return staged;
  if (!contents->authorities.empty()) {
    if (absl::Status staged = authorities_.Replace(contents->authorities); !staged.ok()) return staged;
  }
  if (contents->revoked.has_value()) revocations_->Set(*contents->revoked);
  in_force_ = all;
  return true;
}

}  // namespace attend::server
