#include "server/rpc/call_credentials.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

constexpr char kAuthorization[] = "authorization";

// The kinds of names that a certificate has, the most exact first.
constexpr struct {
  const char* property;
  const char* prefix;
} kKinds[] = {
    {GRPC_PEER_URI_PROPERTY_NAME, "uri:"}, {GRPC_PEER_DNS_PROPERTY_NAME, "dns:"}, {GRPC_X509_CN_PROPERTY_NAME, "cn:"}};

std::vector<std::string> CertificateIdentities(const grpc::ServerContext& context) {
  std::vector<std::string> identities;
  const auto peer = context.auth_context();
  if (peer == nullptr) return identities;
  for (const auto& [property, prefix] : kKinds) {
    for (const grpc::string_ref& name : peer->FindPropertyValues(property)) {
      identities.push_back(absl::StrCat(prefix, absl::string_view(name.data(), name.size())));
    }
  }
  // A certificate without a name is one all the same: nobody's.
  if (identities.empty()) identities.emplace_back("a certificate without a name");
  return identities;
}

}  // namespace

bool IsLocalPeer(const std::string& peer) {
  for (const char* local : {"ipv4:127.", "ipv6:%5B::1%5D:", "ipv6:[::1]:", "unix:"}) {
    if (absl::StartsWith(peer, local)) return true;
  }
  return false;
}

absl::StatusOr<Credentials> CredentialsOf(const grpc::ServerContext& context, bool mutual_tls) {
  Credentials credentials;
  const auto [first, end] = context.client_metadata().equal_range(kAuthorization);
  if (first != end) {
    if (std::next(first) != end) {
      return WithDetails(absl::UnauthenticatedError("the metadata 'authorization' came more than once"),
                         {.reason = reason::kBadCredential, .field = "", .metadata = {}});
    }
    credentials.authorization.emplace(first->second.data(), first->second.size());
    return credentials;
  }
  if (mutual_tls) {
    credentials.certificate = CertificateIdentities(context);
  } else {
    credentials.is_local = IsLocalPeer(context.peer());
  }
  return credentials;
}

}  // namespace attend::server
