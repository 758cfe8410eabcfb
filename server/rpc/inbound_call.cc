#include "server/rpc/inbound_call.h"

#include "absl/time/clock.h"

namespace attend::server {

const std::string& InboundCall::principal() const {
  static const std::string* const anonymous = new std::string("anonymous");
  return principal_ == nullptr ? *anonymous : principal_->name;
}

const std::string& InboundCall::tenant() const {
  static const std::string* const shared = new std::string(kSharedTenant);
  return principal_ == nullptr ? *shared : principal_->tenant->name();
}

absl::Status InboundCall::CheckCaller(Authenticator& authenticator, const absl::StatusOr<Credentials>& credentials,
                                      Roles needed) {
  if (!credentials.ok()) return credentials.status();
  // Tokens alone expire. Whatever came to later would have expired, too.
  const absl::Time now = credentials->authorization.has_value() ? absl::Now() : absl::InfiniteFuture();
  absl::StatusOr<PrincipalRef> principal = authenticator.Authenticate(*credentials, now);
  if (!principal.ok()) return principal.status();
  principal_ = *std::move(principal);
  absl::Status status = Authenticator::Authorize(*principal_, needed);
  if (status.ok()) account_ = authenticator.AccountOf(*principal_, credentials->peer_address, credentials->from_proxy);
  return status;
}

absl::Status InboundCall::CancelledStatus() const {
  return DeadlinePassed() ? absl::DeadlineExceededError("the call's deadline passed before it was done")
                          : absl::CancelledError("the caller cancelled the call or went away");
}

}  // namespace attend::server
