#include "server/identity/principals_file.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/files/json_text.h"

namespace attend::server {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxBytes = std::size_t{4} << 20;

absl::Status Bad(const std::string& what) { return absl::InvalidArgumentError(what); }

absl::Status CheckKeys(const Json& object, const std::string& where, const std::set<std::string>& known) {
  if (!object.is_object()) return Bad(absl::StrCat(where, " is no object"));
  for (const auto& [key, value] : object.items()) {
    if (known.count(key) == 0) return Bad(absl::StrCat(where, " has the key '", key, "', which means nothing here"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Texts(const Json& object, const char* key, const std::string& where) {
  std::vector<std::string> texts;
  if (!object.contains(key)) return texts;
  if (!object[key].is_array()) return Bad(absl::StrCat(where, ": ", key, " is no list"));
  for (const Json& text : object[key]) {
    if (!text.is_string()) return Bad(absl::StrCat(where, ": ", key, " holds something else than texts"));
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

absl::StatusOr<Roles> ReadRoles(const Json& entry, const std::string& where) {
  Roles roles;
  const absl::StatusOr<std::vector<std::string>> names = Texts(entry, "roles", where);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const absl::StatusOr<Roles> role = Roles::Parse(name);
    if (!role.ok()) return Bad(absl::StrCat(where, ": ", role.status().message()));
    roles = roles | *role;
  }
  return roles;
}

// Leaves `value` as it is when there is none.
absl::Status ReadNumber(const Json& entry, const char* key, const std::string& where, double least, double most,
                        double& value) {
  if (!entry.contains(key)) return absl::OkStatus();
  const double number = entry[key].is_number() ? entry[key].get<double>() : std::nan("");
  if (!(number >= least && number <= most)) {
    return Bad(absl::StrCat(where, ": ", key, " is no number from ", least, " to ", most));
  }
  value = number;
  return absl::OkStatus();
}

absl::Status ReadCount(const Json& entry, const char* key, const std::string& where, std::int64_t& value) {
  if (!entry.contains(key)) return absl::OkStatus();
  constexpr std::int64_t kMost = std::int64_t{1} << 62;
  const Json& number = entry[key];
  if (!number.is_number_unsigned() || number.get<std::uint64_t>() > kMost) {
    return Bad(absl::StrCat(where, ": ", key, " is no whole number from 0 to 2^62"));
  }
  value = number.get<std::int64_t>();
  return absl::OkStatus();
}

// Whether the two are equal, in a time that does not say where they differ.
bool AreEqual(const formats::Sha256Digest& a, const formats::Sha256Digest& b) {
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

struct Principals::Reader {
  // A principal that lacks its tenant as yet.
  struct Member {
    std::shared_ptr<Principal> principal;
    std::string tenant;
  };

  bool has_tenants = false;
  Principals principals;
  std::set<std::string> names;
  std::vector<Member> members;

  absl::Status AddTenant(const Json& entry, std::string where) {
    absl::Status keys = CheckKeys(entry, where,
                                  {"name", "weight", "max_requests_in_flight", "max_compute_threads",
                                   "max_memory_in_flight_bytes", "max_layers_bytes"});
    if (!keys.ok()) return keys;
    const std::string name = entry.contains("name") && entry["name"].is_string() ? entry["name"] : Json("");
    if (const absl::Status valid = CheckTenantName(name); !valid.ok()) {
      return Bad(absl::StrCat(where, ": ", valid.message()));
    }
    where = absl::StrCat("the tenant '", name, "'");
    TenantLimits limits;
    absl::Status read = ReadNumber(entry, "weight", where, 1e-3, 1e3, limits.weight);
    read.Update(ReadNumber(entry, "max_compute_threads", where, 1e-3, 1e6, limits.max_compute_threads));
    read.Update(ReadCount(entry, "max_requests_in_flight", where, limits.max_requests_in_flight));
    read.Update(ReadCount(entry, "max_memory_in_flight_bytes", where, limits.max_memory_in_flight_bytes));
    read.Update(ReadCount(entry, "max_layers_bytes", where, limits.max_layers_bytes));
    if (!read.ok()) return read;
    if (!principals.limits_.emplace(name, limits).second) return Bad(absl::StrCat(where, " is given twice"));
    return absl::OkStatus();
  }

  absl::Status AddTenants(const Json& document) {
    if (!document.contains("tenants")) return absl::OkStatus();
    has_tenants = true;
    if (!document["tenants"].is_array()) return Bad("'tenants' is no list");
    int number = 0;
    for (const Json& entry : document["tenants"]) {
      if (absl::Status added = AddTenant(entry, absl::StrCat("tenant ", ++number)); !added.ok()) return added;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadTenant(const Json& entry, const std::string& where) const {
    if (!entry.contains("tenant")) return kSharedTenant;
    const std::string name = entry["tenant"].is_string() ? entry["tenant"] : Json("");
    const absl::Status valid = CheckTenantName(name);
    if (!valid.ok()) return Bad(absl::StrCat(where, ": tenant: ", valid.message()));
    if (has_tenants && name != kSharedTenant && principals.limits_.count(name) == 0) {
      return Bad(absl::StrCat(where, ": the tenant '", name, "' is not on the list 'tenants'"));
    }
    return name;
  }

  absl::Status AddCertificates(const Json& entry, const std::string& where, const PrincipalRef& principal) {
    const absl::StatusOr<std::vector<std::string>> identities = Texts(entry, "certificates", where);
    if (!identities.ok()) return identities.status();
    for (const std::string& identity : *identities) {
      const bool has_kind =
          absl::StartsWith(identity, "uri:") || absl::StartsWith(identity, "dns:") || absl::StartsWith(identity, "cn:");
      if (!has_kind || identity.back() == ':') {
        return Bad(absl::StrCat(where, ": '", identity, "' is no uri:, dns: or cn: with a name"));
      }
      if (!principals.certificates_.emplace(identity, principal).second) {
        return Bad(absl::StrCat(where, ": '", identity, "' is given twice"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddToken(const Json& token, const std::string& where, const PrincipalRef& principal) {
    if (absl::Status keys = CheckKeys(token, where, {"sha256", "expires"}); !keys.ok()) return keys;
    Token read{.sha256 = {}, .expires = absl::InfiniteFuture(), .principal = principal};
    const std::string hex = token.contains("sha256") && token["sha256"].is_string() ? token["sha256"] : Json("");
    const std::string bytes = hex.size() == 64 && hex.find_first_not_of("0123456789abcdef") == std::string::npos
                                  ? absl::HexStringToBytes(hex)
                                  : "";
    if (bytes.empty()) return Bad(absl::StrCat(where, ": sha256 is not 64 lower-case hexadecimal digits"));
    std::copy(bytes.begin(), bytes.end(), read.sha256.begin());
    if (read.sha256 == formats::Sha256::Of("")) {
      return Bad(absl::StrCat(where, ": sha256 is the hash of an empty token"));
    }
    std::string why;
    if (token.contains("expires") &&
        (!token["expires"].is_string() ||
         !absl::ParseTime(absl::RFC3339_full, token["expires"].get<std::string>(), &read.expires, &why))) {
      return Bad(absl::StrCat(where, ": expires is no time as in 2027-01-31T00:00:00Z"));
    }
    for (const Token& other : principals.tokens_) {
      if (other.sha256 == read.sha256) return Bad(absl::StrCat(where, " is given twice"));
    }
    principals.tokens_.push_back(std::move(read));
    return absl::OkStatus();
  }

  absl::Status Add(const Json& entry, std::string where) {
    if (absl::Status keys = CheckKeys(entry, where, {"name", "tenant", "roles", "certificates", "tokens"});
        !keys.ok()) {
      return keys;
    }
    const std::string name = entry.contains("name") && entry["name"].is_string() ? entry["name"] : Json("");
    if (name.empty() || name == "anonymous") return Bad(absl::StrCat(where, " has no name of its own"));
    if (!names.insert(name).second) return Bad(absl::StrCat("the principal '", name, "' is given twice"));
    where = absl::StrCat("the principal '", name, "'");
    const absl::StatusOr<Roles> roles = ReadRoles(entry, where);
    if (!roles.ok()) return roles.status();
    absl::StatusOr<std::string> tenant = ReadTenant(entry, where);
    if (!tenant.ok()) return tenant.status();
    const auto principal =
        std::make_shared<Principal>(Principal{.name = name, .roles = *roles, .tenant = nullptr, .account = nullptr});
    members.push_back({.principal = principal, .tenant = *std::move(tenant)});
    if (absl::Status added = AddCertificates(entry, where, principal); !added.ok()) return added;
    if (!entry.contains("tokens")) return absl::OkStatus();
    if (!entry["tokens"].is_array()) return Bad(absl::StrCat(where, ": tokens is no list"));
    int number = 0;
    for (const Json& token : entry["tokens"]) {
      if (absl::Status added = AddToken(token, absl::StrCat(where, ", token ", ++number), principal); !added.ok()) {
        return added;
      }
    }
    return absl::OkStatus();
  }

  // Once the whole file is good: tenants stay for as long as the server.
  Principals Finish(Tenants& tenants, Accounts& accounts) {
    for (Member& member : members) {
      Principal& principal = *member.principal;
      principal.tenant = tenants.Get(member.tenant);
      // No peer's address begins so.
      principal.account = accounts.Get(absl::StrCat("principal ", principal.name), principal.tenant);
    }
    return std::move(principals);
  }
};

absl::StatusOr<Principals> Principals::Parse(std::string_view json, Tenants& tenants, Accounts& accounts) {
  if (json.size() > kMaxBytes) return Bad("it is larger than 4 MiB");
  const absl::StatusOr<Json> parsed = formats::ParseJsonObject(json);  // Refuses a key that comes twice.
  if (!parsed.ok()) return parsed.status();
  const Json& document = *parsed;
  if (absl::Status keys = CheckKeys(document, "the file", {"tenants", "principals"}); !keys.ok()) return keys;
  if (!document.contains("principals") || !document["principals"].is_array()) {
    return Bad("it has no list 'principals'");
  }
  Reader reader;
  if (absl::Status added = reader.AddTenants(document); !added.ok()) return added;
  int number = 0;
  for (const Json& entry : document["principals"]) {
    if (absl::Status added = reader.Add(entry, absl::StrCat("principal ", ++number)); !added.ok()) return added;
  }
  return reader.Finish(tenants, accounts);
}

void Principals::ApplyLimits(const Tenants& tenants) const {
  for (const TenantRef& tenant : tenants.All()) {
    const auto found = limits_.find(tenant->name());
    tenant->SetLimits(found == limits_.end() ? TenantLimits() : found->second);
  }
}

PrincipalRef Principals::FindCertificate(const std::vector<std::string>& identities) const {
  for (const std::string& identity : identities) {
    const auto found = certificates_.find(identity);
    if (found != certificates_.end()) return found->second;
  }
  return nullptr;
}

absl::StatusOr<PrincipalRef> Principals::FindToken(std::string_view token, absl::Time now) const {
  const formats::Sha256Digest sha256 = formats::Sha256::Of(token);
  const Token* found = nullptr;
  for (const Token& known : tokens_) {  // All of them, whichever it is.
    if (AreEqual(known.sha256, sha256)) found = &known;
  }
  if (found == nullptr) return absl::UnauthenticatedError("the bearer token is not known to this server");
  if (found->expires <= now) return absl::UnauthenticatedError("the bearer token has expired; ask for a new one");
  return found->principal;
}

}  // namespace attend::server
