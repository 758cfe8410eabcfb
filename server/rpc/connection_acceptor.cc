#include "server/rpc/connection_acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

#include "server/rpc/shares.h"

namespace attend::server {
namespace {

// How long to wait for descriptors before the next try: well under a second, and no busy loop.
constexpr int kOutOfDescriptorsMs = 100;

// Connections of one listener before the others, and the end, are looked at.
constexpr int kAtATime = 64;

// The inode of the socket that `fd` is; 0 when it is none. `fd` may be closed meanwhile and given out again: then the
// inode is another one. (statx, because ThreadSanitizer takes fstat of such a descriptor for a race.)
std::uint64_t SocketInode(int fd) {
  struct statx info {};
  const bool found = statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO, &info) == 0;
  return found && S_ISSOCK(info.stx_mode) ? info.stx_ino : 0;
}

// Ends a connection that gRPC owns, which then closes it. `fd` may be closed meanwhile and given out again, so a copy,
// which nobody closes, is looked at.
bool ShutDownSocket(int fd, std::uint64_t inode) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return false;
  const bool is_same = SocketInode(copy) == inode;
  if (is_same) shutdown(copy, SHUT_RDWR);
  close(copy);
  return is_same;
}

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

std::int64_t OpenConnections::Add(int fd, const std::string& peer) {
  const std::uint64_t inode = SocketInode(fd);
  const MutexLock lock(mu_);
  connections_.insert_or_assign(fd, Connection{inode, peer, next_number_});
  return next_number_++;
}

bool OpenConnections::ShutDown(std::int64_t number) {
  const MutexLock lock(mu_);
  const auto at = std::find_if(connections_.begin(), connections_.end(),
                               [number](const auto& entry) { return entry.second.number == number; });
  return at != connections_.end() && ShutDownSocket(at->first, at->second.inode);
}

void OpenConnections::ForgetClosed() {
  absl::erase_if(connections_, [](const auto& entry) { return SocketInode(entry.first) != entry.second.inode; });
}

int OpenConnections::Count() {
  const MutexLock lock(mu_);
  ForgetClosed();
  return static_cast<int>(connections_.size());
}

bool OpenConnections::HasRoomFor(const std::string& peer, int most) {
  const MutexLock lock(mu_);
  if (static_cast<int>(connections_.size()) < most) return true;
  ForgetClosed();
  if (static_cast<int>(connections_.size()) < most) return true;
  const int share = std::max(most / kShares, 1);
  absl::flat_hash_map<std::string, int> counts;
  for (const auto& [fd, connection] : connections_) ++counts[connection.peer];
  if (!peer.empty() && counts[peer] >= share) return false;
  const auto newest = NewestOfLargest(counts, share);
  if (newest == connections_.end() || !ShutDownSocket(newest->first, newest->second.inode)) return false;
  connections_.erase(newest);
  return true;
}

OpenConnections::Connections::iterator OpenConnections::NewestOfLargest(
    const absl::flat_hash_map<std::string, int>& counts, int share) {
  const auto rank = [&counts](const Connections::iterator& at) {
    return std::pair(counts.at(at->second.peer), at->second.number);
  };
  auto newest = connections_.end();
  for (auto at = connections_.begin(); at != connections_.end(); ++at) {
    if (at->second.peer.empty() || rank(at).first <= share) continue;
    if (newest == connections_.end() || rank(newest) < rank(at)) newest = at;
  }
  return newest;
}

ConnectionAcceptor::ConnectionAcceptor(std::vector<ListenSocket> listeners, Receiver& receiver, const Options& options)
    : listeners_(std::move(listeners)),
      receiver_(receiver),
      options_(options),
      guard_(options.hand_over_patience,
             [this](std::int64_t connection) {
               // Where the thread does not come back at once, the guard asks again.
               if (open_.ShutDown(connection) && std::exchange(last_kept_, connection) != connection) {
                 refused_.fetch_add(1, std::memory_order_relaxed);
               }
             }),
      stop_(eventfd(0, EFD_CLOEXEC)),
      thread_([this] { Run(); }) {}

ConnectionAcceptor::~ConnectionAcceptor() {
  Stop();
  close(stop_);
}

void ConnectionAcceptor::Stop() {
  if (!thread_.joinable()) return;
  eventfd_write(stop_, 1);
  thread_.join();
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
  guard_.Begin(number);
  receiver_.HandleNewConnection(&connection);
  guard_.End();
}

}  // namespace attend::server
