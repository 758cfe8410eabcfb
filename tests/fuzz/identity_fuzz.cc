// Fuzzes what names callers: the file of --principals, --trusted-proxies and the header x-forwarded-client-cert.
//
// The first byte says which. Whatever the bytes, there is an answer; a header that is taken names identities of the
// kinds that there are, each of which stands in it, and no element behind a comma.
//
//   build/fuzz/bin/identity_fuzz -max_len=4096 -max_total_time=600 tests/fuzz/corpus/identity
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_split.h"
#include "server/identity/principals_file.h"
#include "server/identity/trusted_proxies.h"

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

}  // namespace
}  // namespace attend

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0: attend::ReadHeader(text); break;
    case 1: attend::ReadFile(text); break;
    default: attend::ReadProxies(text); break;
  }
  return 0;
}
