#include "server/rpc/call_credentials.h"

#include <arpa/inet.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

constexpr char kAuthorization[] = "authorization";
constexpr char kForwardedCertificate[] = "x-forwarded-client-cert";
constexpr absl::string_view kIpv4 = "ipv4:";

absl::Status BadCredential(const std::string& sentence) {
  return WithDetails(absl::UnauthenticatedError(sentence),
                     {.reason = reason::kBadCredential, .field = "", .metadata = {}});
}

// The value of one header; nothing when there is none. Errors: UNAUTHENTICATED for several.
absl::StatusOr<std::optional<std::string_view>> OnlyOne(const CallerEvidence& shown, const char* name) {
  const SentHeader header = shown.header(name);
  if (header.count == 0) return std::nullopt;
  if (header.count > 1) return BadCredential(absl::StrCat("the metadata '", name, "' came more than once"));
  return header.value;
}

// `127.0.0.1` of `ipv4:127.0.0.1:40000`; `unix` of a Unix socket; empty of anything else. gRPC writes
// `ipv6:%5B::1%5D:40000`, and `ipv6:[::1]:` in newer versions.
absl::string_view HostOf(absl::string_view peer) {
  const std::size_t colon = peer.rfind(':');
  const bool is_ip = absl::StartsWith(peer, kIpv4) || absl::StartsWith(peer, "ipv6:");
  if (absl::StartsWith(peer, "unix")) return "unix";
  if (!is_ip || colon <= kIpv4.size()) return "";
  absl::string_view host = peer.substr(kIpv4.size(), colon - kIpv4.size());
  if (absl::ConsumePrefix(&host, "%5B") || absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "%5D")) absl::ConsumeSuffix(&host, "]");
  }
  return host;
}

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

std::string PeerAddress(const std::string& peer) {
  std::string host(HostOf(peer));
  if (absl::StartsWith(peer, kIpv4)) return host;
  in6_addr address{};
  if (inet_pton(AF_INET6, host.substr(0, host.find('%')).c_str(), &address) != 1) return host;
  constexpr std::size_t kSiteBytes = 8;
  return absl::StrCat(
      absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(address.s6_addr), kSiteBytes)), "/64");
}

bool IsLocalPeer(const std::string& peer) {
  for (const char* local : {"ipv4:127.", "ipv6:%5B::1%5D:", "ipv6:[::1]:", "unix:"}) {
    if (absl::StartsWith(peer, local)) return true;
  }
  return false;
}

absl::StatusOr<Credentials> CredentialsOf(const CallerEvidence& shown, bool mutual_tls, const TrustedProxies& proxies) {
  Credentials credentials;
  absl::StatusOr<std::optional<std::string_view>> authorization = OnlyOne(shown, kAuthorization);
  if (!authorization.ok()) return authorization.status();
  credentials.authorization = *authorization;
  // Who shows a token is known by it alone.
  if (credentials.authorization.has_value()) return credentials;
  if (mutual_tls) credentials.certificate = shown.certificate();
  const std::string peer = shown.peer();
  credentials.peer_address = PeerAddress(peer);
  credentials.from_proxy = !proxies.empty() && (proxies.HasAddress(std::string(HostOf(peer))) ||
                                                proxies.HasCertificate(credentials.certificate));
  credentials.is_local = !mutual_tls && !credentials.from_proxy && IsLocalPeer(peer);
  if (!credentials.from_proxy) return credentials;
  const absl::StatusOr<std::optional<std::string_view>> forwarded = OnlyOne(shown, kForwardedCertificate);
  if (!forwarded.ok()) return forwarded.status();
  if (!forwarded->has_value()) return credentials;
  absl::StatusOr<std::vector<std::string>> identities = ParseForwardedCertificate(**forwarded);
  if (!identities.ok()) return BadCredential(std::string(identities.status().message()));
  credentials.certificate = *std::move(identities);
  return credentials;
}

absl::StatusOr<Credentials> CredentialsOf(const grpc::ServerContext& context, bool mutual_tls,
                                          const TrustedProxies& proxies) {
  const auto header = [&context](const char* name) {
    const auto [first, end] = context.client_metadata().equal_range(name);
    if (first == end) return SentHeader();
    return SentHeader{static_cast<std::size_t>(std::distance(first, end)),
                      std::string_view(first->second.data(), first->second.size())};
  };
  return CredentialsOf({.header = header,
                        .certificate = [&context] { return CertificateIdentities(context); },
                        .peer = [&context] { return context.peer(); }},
                       mutual_tls, proxies);
}

bool ShowsToken(const grpc::ServerContext& context) { return context.client_metadata().count(kAuthorization) != 0; }

absl::StatusOr<Credentials> CredentialsOfPeer(const std::string& peer) {
  return CredentialsOf({.header = [](const char* /*name*/) { return SentHeader(); },
                        .certificate = [] { return std::vector<std::string>(); },
                        .peer = [&peer] { return peer; }},
                       /*mutual_tls=*/false, TrustedProxies());
}

}  // namespace attend::server
