#include "server/rpc/listen_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

// Ports that the system chooses for one family may be taken in the other.
constexpr int kPortAttempts = 50;

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;

  bool is_ipv6() const { return storage.ss_family == AF_INET6; }
  in_port_t& port() {
    return is_ipv6() ? reinterpret_cast<sockaddr_in6&>(storage).sin6_port
                     : reinterpret_cast<sockaddr_in&>(storage).sin_port;
  }
  bool is_wildcard() const {
    if (!is_ipv6()) return reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr == INADDR_ANY;
    return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr);
  }
  std::string text() const {
    char host[NI_MAXHOST], service[NI_MAXSERV];
    getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host, sizeof host, service, sizeof service,
                NI_NUMERICHOST | NI_NUMERICSERV);
    return is_ipv6() ? absl::StrCat("[", host, "]:", service) : absl::StrCat(host, ":", service);
  }
  bool operator==(const Address& other) const {
    return size == other.size && std::memcmp(&storage, &other.storage, size) == 0;
  }
};

// Listens on `address`; else returns errno. A wildcard takes IPv4 too.
std::variant<ListenSocket, int> TryListen(const Address& address) {
  ListenSocket listener(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "", 0);
  const int fd = listener.fd();
  if (fd < 0) return errno;
  const int on = 1, v6only = address.is_wildcard() ? 0 : 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.is_ipv6()) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
  // Two servers may both have bound one port by now; listening is what only one of them can.
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) return errno;
  if (listen(fd, SOMAXCONN) != 0) return errno;
  Address own;
  own.size = sizeof own.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&own.storage), &own.size);
  return ListenSocket(listener.Release(), own.text(), ntohs(own.port()));
}

bool IsOfNoUse(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT; }

// An address as an operator gave it.
struct Listen {
  const std::string& address;
  const std::string& flag;
};

absl::Status CannotListen(const Listen& listen, const std::string& why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", listen.address, " (", listen.flag, "): ", why));
}

absl::Status BindError(const Listen& listen, int error) {
  switch (error) {
    case EADDRINUSE:
      return CannotListen(listen,
                          "another process uses this port; end that process, or choose another port (0: any free one)");
    case EACCES: return CannotListen(listen, "this port is not permitted to this user; choose one from 1024 on");
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT: return CannotListen(listen, "this machine has no such address");
    default: return CannotListen(listen, std::strerror(error));
  }
}

absl::Status AddAddresses(const std::string& host, const std::string& port, std::vector<Address>& addresses) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
  if (error != 0) return absl::NotFoundError(error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    Address address;
    address.size = entry->ai_addrlen;
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) addresses.push_back(address);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Address>> Lookup(const Listen& listen) {
  const std::size_t colon = listen.address.rfind(':');
  if (colon == std::string::npos) return CannotListen(listen, "it is not host:port");
  std::string host = listen.address.substr(0, colon);
  const std::string port = listen.address.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  std::vector<Address> addresses;
  // Files of hosts often give it the one family or the other, and clients may try either first (RFC 6761 has both).
  for (const char* name : {"127.0.0.1", "::1"}) {
    if (host == "localhost") AddAddresses(name, port, addresses).IgnoreError();
  }
  if (addresses.empty()) {
    if (const absl::Status found = AddAddresses(host, port, addresses); !found.ok() || addresses.empty()) {
      return CannotListen(listen, absl::StrCat("the name '", host, "' has no address: ", found.message()));
    }
  }
  return addresses;
}

// Listens on all, with the port that the first one got where that is 0; 0, or the error of an address that cannot be
// bound.
int TryAll(std::vector<Address> addresses, std::vector<ListenSocket>& listeners) {
  int missing = 0;
  listeners.clear();
  for (Address& address : addresses) {
    if (!listeners.empty()) address.port() = htons(static_cast<in_port_t>(listeners.front().port()));
    std::variant<ListenSocket, int> tried = TryListen(address);
    if (auto* const listener = std::get_if<ListenSocket>(&tried); listener != nullptr) {
      listeners.push_back(std::move(*listener));
    } else if (!IsOfNoUse(missing = std::get<int>(tried))) {
      return missing;
    }
  }
  return listeners.empty() ? missing : 0;
}

// All addresses of both families, or of IPv4 where a machine has no IPv6.
std::vector<Address> Wildcards(Address address) {
  const in_port_t port = address.port();
  sockaddr_in6 both{.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_ANY_INIT};
  sockaddr_in ipv4{.sin_family = AF_INET, .sin_port = port};
  Address first{.size = sizeof both}, second{.size = sizeof ipv4};
  std::memcpy(&first.storage, &both, sizeof both);
  std::memcpy(&second.storage, &ipv4, sizeof ipv4);
  return {first, second};
}

absl::StatusOr<std::vector<ListenSocket>> ListenOnWildcard(const Listen& listen, const Address& address) {
  for (const Address& wildcard : Wildcards(address)) {
    std::variant<ListenSocket, int> tried = TryListen(wildcard);
    if (auto* const listener = std::get_if<ListenSocket>(&tried); listener != nullptr) {
      std::vector<ListenSocket> listeners;
      listeners.push_back(std::move(*listener));
      return listeners;
    }
    if (!wildcard.is_ipv6() || !IsOfNoUse(std::get<int>(tried))) return BindError(listen, std::get<int>(tried));
  }
  return BindError(listen, EADDRNOTAVAIL);
}

}  // namespace

ListenSocket::~ListenSocket() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::vector<ListenSocket>> ListenOn(const std::string& address, const std::string& flag) {
  const Listen listen{.address = address, .flag = flag};
  absl::StatusOr<std::vector<Address>> addresses = Lookup(listen);
  if (!addresses.ok()) return addresses.status();
  if (addresses->size() == 1 && addresses->front().is_wildcard()) return ListenOnWildcard(listen, addresses->front());
  const bool any_port = addresses->front().port() == 0;
  std::vector<ListenSocket> listeners;
  int error = EADDRINUSE;
  for (int attempt = 0; attempt < (any_port ? kPortAttempts : 1) && error == EADDRINUSE; ++attempt) {
    error = TryAll(*addresses, listeners);
  }
  if (error != 0) return BindError(listen, error);
  return listeners;
}

}  // namespace attend::server
