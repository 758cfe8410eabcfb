#include "server/rpc/connection_acceptor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

// How long to wait for descriptors before the next try: well under a second, and no busy loop.
constexpr int kOutOfDescriptorsMs = 100;

// Connections of one listener before the others, and the end, are looked at.
constexpr int kAtATime = 64;

// The address without a port; `unix` for a Unix socket.
std::string HostOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  const auto* ipv4 = reinterpret_cast<const sockaddr_in*>(&address);
  const auto* ipv6 = reinterpret_cast<const sockaddr_in6*>(&address);
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &ipv4->sin_addr, text, sizeof text);
  } else if (address.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)) {
    inet_ntop(AF_INET, &ipv6->sin6_addr.s6_addr[12], text, sizeof text);
  } else if (address.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &ipv6->sin6_addr, text, sizeof text);
  } else {
    return "unix";
  }
  return text;
}

// Whose connections share a part: an address or, of IPv6, the first 64 bits, which are one site's.
std::string SiteOf(const sockaddr_storage& address, const std::string& host) {
  const auto* ipv6 = reinterpret_cast<const sockaddr_in6*>(&address);
  if (address.ss_family != AF_INET6 || IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)) return host;
  return std::string(reinterpret_cast<const char*>(ipv6->sin6_addr.s6_addr), 8);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> ConnectionAcceptor::Start(std::vector<ListenSocket> listeners,
                                                                              Receiver& receiver,
                                                                              const Options& options) {
  const int stop = eventfd(0, EFD_CLOEXEC);
  if (stop < 0) return absl::UnavailableError(absl::StrCat("cannot accept connections: ", std::strerror(errno)));
  return std::unique_ptr<ConnectionAcceptor>(new ConnectionAcceptor(std::move(listeners), receiver, options, stop));
}

ConnectionAcceptor::ConnectionAcceptor(std::vector<ListenSocket> listeners, Receiver& receiver, const Options& options,
                                       int stop)
    : listeners_(std::move(listeners)),
      receiver_(receiver),
      options_(options),
      guard_(options.hand_over_patience,
             [this](std::int64_t connection) {
               // Where the thread does not come back at once, the guard asks again.
               if (open_.Abort(connection) && std::exchange(last_kept_, connection) != connection) {
                 refused_.fetch_add(1, std::memory_order_relaxed);
               }
             }),
      stop_(stop) {
  thread_.Start([this] { Run(); });
}

ConnectionAcceptor::~ConnectionAcceptor() {
  Stop();
  close(stop_);
}

void ConnectionAcceptor::Stop() {
  if (listeners_.empty()) return;
  eventfd_write(stop_, 1);
  thread_.Join();
  listeners_.clear();
}

void ConnectionAcceptor::Run() {
  std::vector<pollfd> polled = {{.fd = stop_, .events = POLLIN, .revents = 0}};
  for (const ListenSocket& listener : listeners_) {
    polled.push_back({.fd = listener.fd(), .events = POLLIN, .revents = 0});
  }
  bool pause = false;
  for (;;) {
    // While descriptors are short, only the end is waited for: connections would be ready all the time.
    if (poll(polled.data(), pause ? 1 : polled.size(), pause ? kOutOfDescriptorsMs : -1) < 0 && errno != EINTR) {
      std::this_thread::sleep_for(std::chrono::milliseconds(kOutOfDescriptorsMs));  // The kernel is out of memory.
      continue;
    }
    if (polled[0].revents != 0) return;
    const bool was_paused = std::exchange(pause, false);
    for (std::size_t i = 1; i < polled.size(); ++i) {
      if ((was_paused || polled[i].revents != 0) && !AcceptSome(polled[i].fd)) pause = true;
    }
  }
}

bool ConnectionAcceptor::AcceptSome(int listener) {
  for (int i = 0; i < kAtATime; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      const std::string host = HostOf(address);
      HandOver(listener, fd, options_.proxies.HasAddress(host) ? "" : SiteOf(address, host));
      continue;
    }
    switch (errno) {
      case EINTR:
      case ECONNABORTED: continue;
      case EAGAIN: return true;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM: return false;
      default: return true;  // Of one connection that came and went (accept(2)).
    }
  }
  return true;
}

void ConnectionAcceptor::HandOver(int listener, int fd, const std::string& peer) {
  if (!open_.HasRoomFor(peer, options_.max_connections)) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    close(fd);
    return;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // No error that matters for a Unix socket.
  const std::int64_t number = open_.Add(fd, peer);
  Receiver::NewConnectionParameters connection;
  connection.listener_fd = listener;
  connection.fd = fd;
  if (options_.on_accepted) options_.on_accepted();
  guard_.Begin(number);
  thread_.BeginQuestion();
  receiver_.HandleNewConnection(&connection);
  thread_.End();
  guard_.End();
}

}  // namespace attend::server
