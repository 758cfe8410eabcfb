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

// A socket bound as gRPC binds one, closed at the end.
class BoundSocket {
 public:
  explicit BoundSocket(const Address& address) : fd_(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (fd_ < 0) {
      error_ = errno;
      return;
    }
    const int on = 1, off = 0;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    // gRPC takes IPv4 with an IPv6 wildcard, and only with that.
    if (address.is_ipv6()) setsockopt(fd_, IPPROTO_IPV6, IPV6_V6ONLY, address.is_wildcard() ? &off : &on, sizeof on);
    if (bind(fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) error_ = errno;
  }
  BoundSocket(BoundSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), error_(other.error_) {}
  BoundSocket& operator=(BoundSocket&&) = delete;
  ~BoundSocket() {
    if (fd_ >= 0) close(fd_);
  }

  int error() const { return error_; }  // 0: it is bound.
  in_port_t port() const {
    Address own;
    own.size = sizeof own.storage;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&own.storage), &own.size);
    return own.port();
  }

 private:
  int fd_;
  int error_ = 0;
};

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
  if (error != 0) return absl::NotFoundError(gai_strerror(error));
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

// Binds all for a moment, with the port that the first one got where that is 0. The addresses that are left have their
// ports; 0, or the error of an address that cannot be bound.
int TryAll(std::vector<Address>& addresses) {
  std::vector<BoundSocket> bound;
  std::vector<Address> usable;
  int missing = 0;
  for (Address& address : addresses) {
    if (!bound.empty()) address.port() = bound.front().port();
    BoundSocket socket(address);
    if (IsOfNoUse(socket.error())) {
      missing = socket.error();
    } else if (socket.error() != 0) {
      return socket.error();
    } else {
      address.port() = socket.port();
      usable.push_back(address);
      bound.push_back(std::move(socket));
    }
  }
  if (usable.empty()) return missing;
  addresses = std::move(usable);
  return 0;
}

// gRPC takes IPv4 alone where a machine has no IPv6.
absl::Status CheckWildcard(const Listen& listen, Address address) {
  int error = BoundSocket(address).error();
  if (IsOfNoUse(error) && address.is_ipv6()) {
    const sockaddr_in ipv4{.sin_family = AF_INET, .sin_port = address.port()};
    address = Address{.size = sizeof ipv4};
    std::memcpy(&address.storage, &ipv4, sizeof ipv4);
    error = BoundSocket(address).error();
  }
  return error == 0 ? absl::OkStatus() : BindError(listen, error);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ResolveListenAddress(const std::string& address, const std::string& flag) {
  const Listen listen{.address = address, .flag = flag};
  absl::StatusOr<std::vector<Address>> addresses = Lookup(listen);
  if (!addresses.ok()) return addresses.status();
  if (addresses->size() == 1 && addresses->front().is_wildcard()) {
    if (absl::Status free = CheckWildcard(listen, addresses->front()); !free.ok()) return free;
    return std::vector<std::string>{address};
  }
  const bool any_port = addresses->front().port() == 0;
  if (any_port && addresses->size() == 1) {
    if (const int error = BoundSocket(addresses->front()).error(); error != 0) return BindError(listen, error);
    return std::vector<std::string>{addresses->front().text()};
  }
  int error = EADDRINUSE;
  for (int attempt = 0; attempt < (any_port ? kPortAttempts : 1) && error == EADDRINUSE; ++attempt) {
    std::vector<Address> tried = *addresses;
    error = TryAll(tried);
    if (error == 0) *addresses = std::move(tried);
  }
  if (error != 0) return BindError(listen, error);
  std::vector<std::string> texts;
  for (const Address& bound : *addresses) texts.push_back(bound.text());
  return texts;
}

}  // namespace attend::server
