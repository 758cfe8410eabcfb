#include "server/identity/authenticator.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "formats/files/mapped_file.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{4} << 20;
constexpr absl::string_view kBearer = "bearer ";

PrincipalRef MakePrincipal(const char* name, Roles roles, Tenants& tenants) {
  return std::make_shared<const Principal>(
      Principal{.name = name, .roles = roles, .tenant = tenants.Get(kSharedTenant), .account = nullptr});
}

absl::Status Unauthenticated(const char* reason, const std::string& sentence) {
  return WithDetails(absl::UnauthenticatedError(sentence), {.reason = reason, .field = "", .metadata = {}});
}

}  // namespace

Authenticator::Authenticator(Options options)
    : options_(std::move(options)),
      local_anonymous_(MakePrincipal("anonymous", options_.anonymous_roles.value_or(Roles::All()), tenants_)),
      remote_anonymous_(
          MakePrincipal("anonymous", options_.anonymous_roles.value_or(Roles::Compute() | Roles::Observe()), tenants_)),
      any_certificate_(MakePrincipal("certificate", Roles::All(), tenants_)) {}

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Create(Options options) {
  std::unique_ptr<Authenticator> authenticator(new Authenticator(std::move(options)));
  const absl::StatusOr<bool> loaded = authenticator->Reload();
  if (!loaded.ok()) return loaded.status();
  return authenticator;
}

absl::StatusOr<bool> Authenticator::Reload() {
  if (options_.principals_path.empty()) return false;
  const auto about = [this](const absl::Status& why) {
    return absl::InvalidArgumentError(absl::StrCat("--principals: '", options_.principals_path, "': ", why.message()));
  };
  absl::StatusOr<std::string> text = formats::ReadTextFile(options_.principals_path, kMaxFileBytes);
  if (!text.ok()) return about(text.status());
  {
    const MutexLock lock(mu_);
    if (principals_ != nullptr && *text == text_) return false;
  }
  absl::StatusOr<Principals> read = Principals::Parse(*text, tenants_, accounts_);
  if (!read.ok()) return about(read.status());
  read->ApplyLimits(tenants_);
  const MutexLock lock(mu_);
  text_ = *std::move(text);
  principals_ = std::make_shared<const Principals>(*std::move(read));
  return true;
}

std::shared_ptr<const Principals> Authenticator::principals() const {
  const MutexLock lock(mu_);
  return principals_;
}

absl::StatusOr<PrincipalRef> Authenticator::FromToken(std::string_view authorization, absl::Time now) const {
  const absl::string_view text(authorization.data(), authorization.size());
  if (!absl::StartsWithIgnoreCase(text, kBearer)) {
    return Unauthenticated(reason::kBadCredential, "the metadata 'authorization' is no bearer token");
  }
  const auto principals = this->principals();
  if (principals == nullptr) {
    return Unauthenticated(reason::kBadCredential,
                           "a bearer token came, and this server knows none (--principals); call without it");
  }
  const absl::string_view token = absl::StripAsciiWhitespace(text.substr(kBearer.size()));
  if (token.empty()) return Unauthenticated(reason::kBadCredential, "the bearer token is empty");
  absl::StatusOr<PrincipalRef> found = principals->FindToken({token.data(), token.size()}, now);
  if (found.ok()) return found;
  return Unauthenticated(reason::kBadCredential, std::string(found.status().message()));
}

absl::StatusOr<PrincipalRef> Authenticator::Authenticate(const Credentials& credentials, absl::Time now) const {
  if (credentials.authorization.has_value()) return FromToken(*credentials.authorization, now);
  if (!credentials.certificate.empty()) {
    const auto principals = this->principals();
    if (principals == nullptr) return any_certificate_;
    PrincipalRef found = principals->FindCertificate(credentials.certificate);
    if (found != nullptr) return found;
    return Unauthenticated(reason::kBadCredential,
                           absl::StrCat("the client certificate's identity (", credentials.certificate.front(),
                                        ") is not known to this server (--principals)"));
  }
  const PrincipalRef& anonymous = credentials.is_local ? local_anonymous_ : remote_anonymous_;
  if (!anonymous->roles.empty()) return anonymous;
  return Unauthenticated(reason::kNoCredential, "this server wants a bearer token or a client certificate");
}

AccountRef Authenticator::AccountOf(const Principal& principal, std::string_view peer_address, bool from_proxy) {
  if (principal.account != nullptr) return principal.account;
  if (from_proxy) return accounts_.Get("callers of proxies", principal.tenant, /*exempt=*/true);
  return accounts_.Get(std::string(peer_address), principal.tenant);
}

absl::Status Authenticator::Authorize(const Principal& principal, Roles needed) {
  if (needed.empty() || principal.roles.Meets(needed)) return absl::OkStatus();
  const std::string names = needed.Names();
  return WithDetails(absl::PermissionDeniedError(absl::StrCat("the principal '", principal.name,
                                                              "' needs one of these roles for this method: ", names)),
                     {.reason = reason::kMissingRole, .field = "", .metadata = {{"role", names}}});
}

}  // namespace attend::server
