// Proxies that speak for others, and what they say of them.
#ifndef ATTEND_SERVER_IDENTITY_TRUSTED_PROXIES_H_
#define ATTEND_SERVER_IDENTITY_TRUSTED_PROXIES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace attend::server {

// The proxies of --trusted-proxies. Immutable; may be read concurrently.
class TrustedProxies {
 public:
  // From addresses (`10.0.0.7`, `10.0.0.0/8`, `fd00::/8`), `unix` for every Unix socket, and identities of client
  // certificates (`uri:...`, `dns:...`, `cn:...`). Errors: INVALID_ARGUMENT naming the entry.
  static absl::StatusOr<TrustedProxies> Parse(const std::vector<std::string>& entries);

  bool empty() const { return networks_.empty() && certificates_.empty() && !unix_; }
  // `text` is an address without a port, or `unix`.
  bool HasAddress(const std::string& text) const;
  bool HasCertificate(const std::vector<std::string>& identities) const;

 private:
  // IPv4 as IPv6 has it (::ffff:a.b.c.d).
  using Address = std::array<std::uint8_t, 16>;
  struct Network {
    Address address;
    int bits;
  };
  static bool ParseAddress(const std::string& text, Address& address, bool& is_ipv4);

  std::vector<Network> networks_;
  std::set<std::string> certificates_;
  bool unix_ = false;
};

// The most bytes of the header; a proxy that forwards whole chains is told to leave them out.
inline constexpr std::size_t kMaxForwardedCertificateBytes = 8192;

// The identities in one `x-forwarded-client-cert` header as Envoy writes it, for example
// `By=spiffe://a/proxy;Hash=0a1b...;URI=spiffe://a/search;DNS=search.example`: each URI as `uri:...`, each DNS as
// `dns:...`, in this order. By, Hash, Subject, Cert and Chain have no meaning here, nor has an empty URI or DNS, which
// Envoy writes of a certificate without one. Pure.
//
// Errors: INVALID_ARGUMENT for anything that is not such a header: another key, a quote that does not end, a control
// character, no URI and no DNS name; and for more than one element, because a proxy that appends lets its
// callers write the others (Envoy: `forward_client_cert_details: SANITIZE_SET`).
absl::StatusOr<std::vector<std::string>> ParseForwardedCertificate(std::string_view header);

}  // namespace attend::server

#endif  // ATTEND_SERVER_IDENTITY_TRUSTED_PROXIES_H_
