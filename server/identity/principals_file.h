// The file of --principals: who may call, how each is known, and what each may do.
//
//   {"tenants": [{"name": "shop", "weight": 2, "max_requests_in_flight": 64, "max_memory_in_flight_bytes": 1073741824,
//                 "max_compute_threads": 1.5, "max_layers_bytes": 2147483648}],
//    "principals": [
//     {"name": "search", "tenant": "shop", "roles": ["compute"],
//      "certificates": ["uri:spiffe://example/search", "dns:search.example", "cn:search"],
//      "tokens": [{"sha256": "2cf2...", "expires": "2027-01-01T00:00:00Z"}]}]}
//
// `tenant` is optional; without it the principal belongs to the tenant `shared`. `tenants` is optional, and so is all
// but the name in it; where it is given, it has every tenant but `shared`, which may be in it too. `weight` is the part
// of the compute time that a tenant has when several want more than there is: 1 unless said otherwise. A certificate is
// known by a URI or DNS name of its subject alternative names or, by `cn:`, by its common name; exactly, without
// wildcards. A token is any text; the file has its SHA-256 in hexadecimal (`printf %s "$TOKEN" | sha256sum`), so that
// who reads the file learns no token, and `expires` is optional. Tokens have to be random: 128 bits or more.
#ifndef ATTEND_SERVER_IDENTITY_PRINCIPALS_FILE_H_
#define ATTEND_SERVER_IDENTITY_PRINCIPALS_FILE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "formats/files/sha256.h"
#include "server/identity/principal.h"

namespace attend::server {

// Immutable once read; may be read concurrently.
class Principals {
 public:
  // Errors: INVALID_ARGUMENT with a sentence that names the entry: a key that is not known, an identity or a token that
  // two principals have, a name that is empty or `anonymous`, a tenant that is none or not on the list, a limit
  // out of range. The principals' tenants and accounts are those of `tenants` and `accounts`, to which a file that is
  // refused adds none.
  static absl::StatusOr<Principals> Parse(std::string_view json, Tenants& tenants, Accounts& accounts);

  // Sets the limits of all of `tenants`: what the file does not say is without limits.
  void ApplyLimits(const Tenants& tenants) const;

  // Whose certificate this is; `identities` as in the file. Null: nobody's. The first that is known counts.
  PrincipalRef FindCertificate(const std::vector<std::string>& identities) const;

  // Whose token this is. Takes as long for any token. Errors: UNAUTHENTICATED for one that is unknown or has expired.
  absl::StatusOr<PrincipalRef> FindToken(std::string_view token, absl::Time now) const;

 private:
  struct Token {
    formats::Sha256Digest sha256;
    absl::Time expires;
    PrincipalRef principal;
  };
  struct Reader;

  std::map<std::string, TenantLimits> limits_;  // Of the tenants on its list.
  std::map<std::string, PrincipalRef> certificates_;
  std::vector<Token> tokens_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_IDENTITY_PRINCIPALS_FILE_H_
