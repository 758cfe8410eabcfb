// Fuzzes what names callers: the file of --principals, --trusted-proxies, the header x-forwarded-client-cert, and all
// that a call brings with it, the header `authorization` included.
//
// The first byte says which. Whatever the bytes, there is an answer; a header that is taken names identities of the
// kinds that there are, each of which stands in it, and no element behind a comma. Whom a call is taken for follows
// from its one token; without one from its certificate; and from x-forwarded-client-cert if a trusted proxy sends it.
//
//   build/fuzz/bin/identity_fuzz -max_len=4096 -max_total_time=600 tests/fuzz/corpus/identity
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "server/identity/authenticator.h"
#include "server/identity/principals_file.h"
#include "server/identity/trusted_proxies.h"
#include "server/rpc/call_credentials.h"
#include "tests/support/temporary_folder.h"

namespace attend {
namespace {

void Require(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "identity_fuzz: " << what << "\n";
  std::abort();
}

void ReadHeader(std::string_view text) {
  const auto identities = server::ParseForwardedCertificate(text);
  if (!identities.ok()) return;
  Require(!identities->empty(), "a header without an identity was taken");
  for (const std::string& identity : *identities) {
    Require(identity.rfind("uri:", 0) == 0 || identity.rfind("dns:", 0) == 0, "an identity of no kind");
    Require(identity.size() > 4 && identity.size() <= text.size() + 1, "an identity that did not stand there");
  }
  Require(!server::ParseForwardedCertificate(std::string(text) + ",URI=spiffe://a").ok(), "a second element was taken");
}

void ReadFile(std::string_view text) {
  server::Tenants tenants;
  server::Accounts accounts;
  const auto principals = server::Principals::Parse(text, tenants, accounts);
  if (!principals.ok()) return;
  principals->ApplyLimits(tenants);
  for (const auto& tenant : tenants.All()) {
    Require(server::CheckTenantName(tenant->name()).ok(), "a tenant without a name");
    Require(tenant->weight() >= 1e-3 && tenant->weight() <= 1e3, "a weight out of range");
  }
}

void ReadProxies(std::string_view text) {
  const std::vector<std::string> entries = absl::StrSplit(absl::string_view(text.data(), text.size()), '\n');
  const auto proxies = server::TrustedProxies::Parse(entries);
  if (!proxies.ok()) return;
  for (const char* address : {"10.1.2.3", "::1", "unix", "", "fd00::1"}) (void)proxies->HasAddress(address);
}

// What a call brings with it: a piece in each line, whose first character says what it is.
struct Call {
  std::vector<std::string> authorization;  // `a`: a header of this name, as often as it came.
  std::vector<std::string> forwarded;      // `f`: x-forwarded-client-cert.
  std::vector<std::string> certificate;    // `c`: a name in the certificate.
  std::string peer;                        // `p`
  bool mutual_tls = false;                 // `m`: certificates are asked for; without it there is none.
};

Call ReadCall(std::string_view text) {
  Call call;
  const std::vector<std::string> lines = absl::StrSplit(absl::string_view(text.data(), text.size()), '\n');
  for (std::string line : lines) {
    if (line.empty()) continue;
    const char kind = line.front();
    line.erase(0, 1);
    switch (kind) {
      case 'a': call.authorization.push_back(std::move(line)); break;
      case 'f': call.forwarded.push_back(std::move(line)); break;
      case 'c': call.certificate.push_back(std::move(line)); break;
      case 'p': call.peer = std::move(line); break;
      case 'm': call.mutual_tls = true; break;
      default: break;
    }
  }
  if (!call.mutual_tls) call.certificate.clear();
  return call;
}

constexpr char kProxy[] = "uri:spiffe://a/proxy";
constexpr char kSearch[] = "uri:spiffe://a/search";

// `search` has the token `hello`, and had the token `old`.
constexpr char kPrincipals[] = R"({"principals": [{"name": "search", "roles": ["compute"],
  "certificates": ["uri:spiffe://a/search"], "tokens": [
    {"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
    {"sha256": "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4", "expires": "2020-01-01T00:00:00Z"}]}]})";

const server::Authenticator& ThatAuthenticator() {
  static const server::Authenticator* const authenticator = [] {
    const testing::TemporaryFolder folder;
    auto made = server::Authenticator::Create(
        {.principals_path = folder.Write("principals.json", kPrincipals), .anonymous_roles = server::Roles()});
    Require(made.ok(), "the file of principals is refused");
    return made->release();
  }();
  return *authenticator;
}

absl::StatusOr<server::Credentials> CredentialsOf(const Call& call) {
  static const auto* const proxies =
      new server::TrustedProxies(*server::TrustedProxies::Parse({"10.0.0.0/8", "fd00::/8", "unix", kProxy}));
  const auto header = [&call](const char* name) {
    const auto& sent = std::strcmp(name, "authorization") == 0 ? call.authorization : call.forwarded;
    return sent.empty() ? server::SentHeader() : server::SentHeader{sent.size(), sent.front()};
  };
  return server::CredentialsOf(
      {.header = header, .certificate = [&call] { return call.certificate; }, .peer = [&call] { return call.peer; }},
      call.mutual_tls, *proxies);
}

void CheckRefusal(const Call& call, const absl::Status& status) {
  Require(absl::IsUnauthenticated(status), "a refusal with another code");
  if (call.authorization.size() > 1) return;
  Require(call.authorization.empty() && !call.forwarded.empty(), "one token, or no header, was refused");
  Call without = call;
  without.forwarded.clear();
  const auto credentials = CredentialsOf(without);
  Require(credentials.ok() && credentials->from_proxy, "a header was refused that means nothing");
}

// Where the certificate comes from that counts for a call without a token.
void CheckCertificate(const Call& call, const server::Credentials& credentials) {
  Require(!credentials.from_proxy || !credentials.is_local, "a proxy's caller is of this machine");
  for (const std::string& name : call.certificate) {
    Require(name != kProxy || credentials.from_proxy, "the proxy is not known by its certificate");
  }
  if (!credentials.from_proxy || call.forwarded.empty()) {
    Require(credentials.certificate == call.certificate, "the certificate is not the connection's");
    return;
  }
  const auto forwarded = server::ParseForwardedCertificate(call.forwarded.front());
  Require(call.forwarded.size() == 1 && forwarded.ok() && credentials.certificate == *forwarded,
          "the certificate is not that of the proxy's caller");
}

// Whether the file has what the call shows.
bool IsKnown(const Call& call, const server::Credentials& credentials) {
  if (call.authorization.empty()) {
    return std::find(credentials.certificate.begin(), credentials.certificate.end(), kSearch) !=
           credentials.certificate.end();
  }
  constexpr std::size_t kScheme = 7;
  const absl::string_view value = call.authorization.front();
  return absl::StartsWithIgnoreCase(value, "bearer ") && absl::StripAsciiWhitespace(value.substr(kScheme)) == "hello";
}

void ReadCredentials(std::string_view text) {
  const Call call = ReadCall(text);
  const absl::StatusOr<server::Credentials> credentials = CredentialsOf(call);
  if (!credentials.ok()) return CheckRefusal(call, credentials.status());
  Require(call.authorization.size() < 2, "one of several tokens was chosen");
  if (call.authorization.empty()) {
    Require(!credentials->authorization.has_value(), "a token that nobody sent");
    CheckCertificate(call, *credentials);
  } else {
    Require(credentials->authorization == call.authorization.front(), "a token that was not sent");
    Require(credentials->certificate.empty() && !credentials->is_local, "something counts beside the token");
  }
  const auto principal = ThatAuthenticator().Authenticate(*credentials, absl::FromUnixSeconds(1'800'000'000));
  Require(principal.ok() == IsKnown(call, *credentials), "a caller is taken for another");
  if (principal.ok()) {
    Require((*principal)->name == "search", "there is one principal");
  } else {
    Require(absl::IsUnauthenticated(principal.status()), "an unknown caller is refused with another code");
  }
}

}  // namespace
}  // namespace attend

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0: attend::ReadHeader(text); break;
    case 1: attend::ReadFile(text); break;
    case 2: attend::ReadProxies(text); break;
    default: attend::ReadCredentials(text); break;
  }
  return 0;
}
