// From what a call brings with it to its principal, and whether that one may call the method.
#ifndef ATTEND_SERVER_IDENTITY_AUTHENTICATOR_H_
#define ATTEND_SERVER_IDENTITY_AUTHENTICATOR_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/base/mutex.h"
#include "server/identity/principal.h"
#include "server/identity/principals_file.h"

namespace attend::server {

// What a call brings with it.
struct Credentials {
  // The metadata `authorization`; nothing when there is none. More than one is for the caller to refuse.
  std::optional<std::string_view> authorization;
  // Of a client certificate that was verified, as `uri:...`, `dns:...`, `cn:...`; empty without one.
  std::vector<std::string> certificate;
  // Whether it comes from this machine: over a loopback address or a Unix socket, and through no trusted proxy.
  bool is_local = false;
  // Through a trusted proxy. `certificate` is then what the proxy says of its caller or, when it says nothing, its own.
  bool from_proxy = false;
  // The address of whoever connected, without a port; empty when nobody needs it.
  std::string peer_address;
};

// A token counts before a certificate, and that before nothing at all:
//   - a bearer token must be one of the file's;
//   - a certificate must be one of the file's; without a file every verified one has all roles;
//   - a caller without either is `anonymous`, with all roles on this machine and with compute and observe from
//     elsewhere, unless --anonymous-roles says otherwise.
// Callers whom no entry of the file names belong to the tenant `shared`.
//
// Thread-safe.
class Authenticator {
 public:
  struct Options {
    std::string principals_path;           // --principals; empty: no file.
    std::optional<Roles> anonymous_roles;  // --anonymous-roles; nothing: by where the caller is.
  };

  // Reads the file. Errors: INVALID_ARGUMENT naming the flag.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Create(Options options);

  // Who calls. Errors: UNAUTHENTICATED with reason NO_CREDENTIAL or BAD_CREDENTIAL.
  absl::StatusOr<PrincipalRef> Authenticate(const Credentials& credentials, absl::Time now) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // The account of a caller, which is its principal's or, where the principal stands for many, that of its peer's
  // address. `from_proxy`: it came through a trusted proxy, so that the address says nothing.
  AccountRef AccountOf(const Principal& principal, std::string_view peer_address, bool from_proxy);
  const Tenants& tenants() const { return tenants_; }

  // Whether `principal` has one of the roles that `needed` has. Errors: PERMISSION_DENIED with reason MISSING_ROLE and
  // the roles as metadata.
  static absl::Status Authorize(const Principal& principal, Roles needed);

  // Reads the file again: true when another is in force now. Errors: as Create; what was in force stays so.
  absl::StatusOr<bool> Reload() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  explicit Authenticator(Options options);
  absl::StatusOr<PrincipalRef> FromToken(std::string_view authorization, absl::Time now) const;
  std::shared_ptr<const Principals> principals() const ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  Tenants tenants_;
  Accounts accounts_;
  // Callers without a credential, whatever file is in force: KnownPeers remembers them.
  const PrincipalRef local_anonymous_;
  const PrincipalRef remote_anonymous_;
  const PrincipalRef any_certificate_;  // Without a file.
  mutable Mutex mu_;
  std::string text_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const Principals> principals_ ABSL_GUARDED_BY(mu_);  // Null without a file.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_IDENTITY_AUTHENTICATOR_H_
