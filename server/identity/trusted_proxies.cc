#include "server/identity/trusted_proxies.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

constexpr std::size_t kIpv4Start = 12;  // Of an IPv4 address in an IPv6 one.
constexpr int kIpv4Bits = 96;           // Before it.

absl::Status Malformed(const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("x-forwarded-client-cert ", why));
}

bool HasCertificateKind(const std::string& entry) {
  for (const char* kind : {"uri:", "dns:", "cn:"}) {
    if (absl::StartsWith(entry, kind)) return entry.back() != ':';
  }
  return false;
}

// One `key=value` of the header, cut off its front. Values in quotes may have `\"` and `\\`.
struct Pair {
  std::string key;
  std::string value;
};

absl::StatusOr<std::string> CutQuoted(std::string_view& rest) {
  std::string value;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    if (rest[i] == '"') {
      rest.remove_prefix(i + 1);
      return value;
    }
    if (rest[i] == '\\' && ++i == rest.size()) break;
    value.push_back(rest[i]);
  }
  return Malformed("has a quote that does not end");
}

absl::StatusOr<Pair> CutPair(std::string_view& rest) {
  const std::size_t equals = rest.find_first_of("=;,\"");
  if (equals == std::string_view::npos || rest[equals] != '=') return Malformed("has a part that is no key=value");
  Pair pair{absl::AsciiStrToLower(absl::string_view(rest.data(), equals)), ""};
  rest.remove_prefix(equals + 1);
  if (!rest.empty() && rest.front() == '"') {
    rest.remove_prefix(1);
    absl::StatusOr<std::string> value = CutQuoted(rest);
    if (!value.ok()) return value.status();
    pair.value = *std::move(value);
  } else {
    const std::size_t end = std::min(rest.find_first_of(";,\""), rest.size());
    pair.value = std::string(rest.substr(0, end));
    rest.remove_prefix(end);
  }
  return pair;
}

}  // namespace

bool TrustedProxies::ParseAddress(const std::string& text, Address& address, bool& is_ipv4) {
  address = {};
  in_addr ipv4{};
  is_ipv4 = inet_pton(AF_INET, text.c_str(), &ipv4) == 1;
  if (!is_ipv4) return inet_pton(AF_INET6, text.c_str(), address.data()) == 1;
  address[10] = address[11] = 0xff;
  std::memcpy(&address[kIpv4Start], &ipv4, sizeof ipv4);
  return true;
}

absl::StatusOr<TrustedProxies> TrustedProxies::Parse(const std::vector<std::string>& entries) {
  TrustedProxies proxies;
  for (const std::string& entry : entries) {
    if (entry == "unix") {
      proxies.unix_ = true;
      continue;
    }
    if (HasCertificateKind(entry)) {
      proxies.certificates_.insert(entry);
      continue;
    }
    const std::size_t slash = entry.find('/');
    Network network{};
    bool is_ipv4 = false;
    bool valid = ParseAddress(entry.substr(0, slash), network.address, is_ipv4);
    network.bits = is_ipv4 ? 32 : 128;
    if (slash != std::string::npos) {
      int bits = -1;
      valid = valid && absl::SimpleAtoi(entry.substr(slash + 1), &bits) && bits >= 0 && bits <= network.bits;
      network.bits = bits;
    }
    if (!valid) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", entry,
                       "' is no address (10.0.0.7), no network (10.0.0.0/8), not `unix`, and no identity of a "
                       "certificate (uri:, dns: or cn: with a name)"));
    }
    if (is_ipv4) network.bits += kIpv4Bits;
    proxies.networks_.push_back(network);
  }
  return proxies;
}

bool TrustedProxies::HasAddress(const std::string& text) const {
  if (text == "unix") return unix_;
  Address address{};
  bool is_ipv4 = false;
  if (networks_.empty() || !ParseAddress(text, address, is_ipv4)) return false;
  return std::any_of(networks_.begin(), networks_.end(), [&address](const Network& network) {
    for (int bit = 0; bit < network.bits; ++bit) {
      const auto byte = static_cast<std::size_t>(bit / 8);
      if (((address[byte] ^ network.address[byte]) >> (7 - bit % 8) & 1) != 0) return false;
    }
    return true;
  });
}

bool TrustedProxies::HasCertificate(const std::vector<std::string>& identities) const {
  return std::any_of(identities.begin(), identities.end(),
                     [this](const std::string& identity) { return certificates_.count(identity) > 0; });
}

absl::StatusOr<std::vector<std::string>> ParseForwardedCertificate(std::string_view header) {
  if (header.size() > kMaxForwardedCertificateBytes) return Malformed("is too long");
  for (const char c : header) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) return Malformed("has a character that is not ASCII text");
  }
  std::vector<std::string> uris;
  std::vector<std::string> names;
  for (std::string_view rest = header;;) {
    const absl::StatusOr<Pair> pair = CutPair(rest);
    if (!pair.ok()) return pair.status();
    if (pair->key == "uri" || pair->key == "dns") {
      // Envoy writes `URI=` also of a certificate without one.
      std::vector<std::string>& found = pair->key == "uri" ? uris : names;
      if (!pair->value.empty()) found.push_back(absl::StrCat(pair->key, ":", pair->value));
    } else if (pair->key != "by" && pair->key != "hash" && pair->key != "subject" && pair->key != "cert" &&
               pair->key != "chain") {
      return Malformed("has a key that means nothing here");
    }
    if (rest.empty()) break;
    if (rest.front() == ',')
      return Malformed("has more than one element; the proxy must replace what its callers send");
    if (rest.front() != ';') return Malformed("goes on behind a quote");
    rest.remove_prefix(1);
  }
  uris.insert(uris.end(), names.begin(), names.end());
  if (uris.empty()) return Malformed("names no URI and no DNS name");
  return uris;
}

}  // namespace attend::server
