#include "server/rpc/open_connections.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/rpc/shares.h"

namespace attend::server {
namespace {

// So many times what a look at all descriptors took nothing looks at them for a new connection's sake.
constexpr int kRestOfLook = 10;
constexpr std::chrono::milliseconds kMostRest(100);

// The inode of the socket that `fd` is; 0 when it is none. `fd` may be closed meanwhile and given out again: then the
// inode is another one. (statx, because ThreadSanitizer takes fstat of such a descriptor for a race.)
std::uint64_t SocketInode(int fd) {
  struct statx info {};
  const bool found = statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO, &info) == 0;
  return found && S_ISSOCK(info.stx_mode) ? info.stx_ino : 0;
}

// Calls `use` with the connection that gRPC owns, if `fd` still is it; whether it was. `fd` may be closed meanwhile and
// given out again, so a copy, which nobody closes, is looked at and used.
bool WithSocket(int fd, std::uint64_t inode, absl::FunctionRef<void(int)> use) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return false;
  const bool is_same = SocketInode(copy) == inode;
  if (is_same) use(copy);
  close(copy);
  return is_same;
}

// Ends it gently: what was written still goes out. gRPC closes it then.
bool ShutDownSocket(int fd, std::uint64_t inode) {
  return WithSocket(fd, inode, [](int socket) { shutdown(socket, SHUT_RDWR); });
}

// The kernel holds up to 32 MiB that were received and not read.
void ThrowAwayReceived(int socket) {
  constexpr std::size_t kAtATime = std::size_t{1} << 30;
  constexpr int kMostTimes = 64;
  // With MSG_TRUNC, TCP throws bytes away instead of copying them (tcp(7)).
  for (int i = 0; i < kMostTimes && recv(socket, nullptr, kAtATime, MSG_TRUNC | MSG_DONTWAIT) > 0; ++i) {
  }
}

// Ends it at once. When gRPC closes it, its peer is told by a reset also while it sends and does not read.
bool AbortSocket(int fd, std::uint64_t inode) {
  return WithSocket(fd, inode, [](int socket) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    shutdown(socket, SHUT_RDWR);
    ThrowAwayReceived(socket);
  });
}

// As CanonicalPeer; empty for one that is not over IP.
std::string PeerOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  char text[INET6_ADDRSTRLEN] = "";
  const auto* ipv4 = reinterpret_cast<const sockaddr_in*>(&address);
  const auto* ipv6 = reinterpret_cast<const sockaddr_in6*>(&address);
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &ipv4->sin_addr, text, sizeof text);
    return absl::StrCat("ipv4:", text, ":", ntohs(ipv4->sin_port));
  }
  if (address.ss_family != AF_INET6) return "";
  if (IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)) {
    inet_ntop(AF_INET, &ipv6->sin6_addr.s6_addr[12], text, sizeof text);
    return absl::StrCat("ipv4:", text, ":", ntohs(ipv6->sin6_port));
  }
  inet_ntop(AF_INET6, &ipv6->sin6_addr, text, sizeof text);
  const std::string scope = ipv6->sin6_scope_id == 0 ? "" : absl::StrCat("%", ipv6->sin6_scope_id);
  return absl::StrCat("ipv6:[", text, scope, "]:", ntohs(ipv6->sin6_port));
}

// False for a socket that counts no bytes.
bool ReadTraffic(int socket, ConnectionTraffic& traffic) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  if (size < offsetof(tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received) return false;
  // In this order: what comes or is read in between makes it less than it is.
  int waiting = 0;
  if (ioctl(socket, FIONREAD, &waiting) != 0) return false;
  traffic.read = static_cast<std::int64_t>(info.tcpi_bytes_received) - waiting;
  traffic.sent = static_cast<std::int64_t>(info.tcpi_bytes_acked);
  traffic.peer = PeerOf(socket);
  return !traffic.peer.empty();
}

}  // namespace

std::string CanonicalPeer(const std::string& grpc_peer) {
  if (!absl::StrContains(grpc_peer, '%')) return grpc_peer;
  return absl::StrReplaceAll(grpc_peer, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
}

std::int64_t OpenConnections::Add(int fd, const std::string& peer) {
  const std::uint64_t inode = SocketInode(fd);
  const MutexLock lock(mu_);
  Forget(fd);  // One that was closed, whose number this is now.
  connections_.emplace(fd, Connection{inode, peer, next_number_});
  if (!peer.empty()) peers_[peer].emplace(next_number_, fd);
  return next_number_++;
}

bool OpenConnections::Abort(std::int64_t number) {
  const MutexLock lock(mu_);
  const auto at = std::find_if(connections_.begin(), connections_.end(),
                               [number](const auto& entry) { return entry.second.number == number; });
  return at != connections_.end() && AbortSocket(at->first, at->second.inode);
}

std::vector<ConnectionTraffic> OpenConnections::Traffic() {
  std::vector<ConnectionTraffic> traffic;
  const MutexLock lock(mu_);
  traffic.reserve(connections_.size());
  for (const auto& [fd, connection] : connections_) {
    ConnectionTraffic one{.number = connection.number, .peer = "", .is_of_many = connection.peer.empty()};
    bool is_tcp = false;
    WithSocket(fd, connection.inode, [&](int socket) { is_tcp = ReadTraffic(socket, one); });
    if (is_tcp) traffic.push_back(std::move(one));
  }
  return traffic;
}

void OpenConnections::Forget(int fd) {
  const auto at = connections_.find(fd);
  if (at == connections_.end()) return;
  const auto peer = peers_.find(at->second.peer);
  if (peer != peers_.end()) {
    peer->second.erase(at->second.number);
    if (peer->second.empty()) peers_.erase(peer);
  }
  connections_.erase(at);
}

void OpenConnections::ForgetClosed() {
  std::vector<int> closed;
  for (const auto& [fd, connection] : connections_) {
    if (SocketInode(fd) != connection.inode) closed.push_back(fd);
  }
  for (const int fd : closed) Forget(fd);
}

void OpenConnections::ForgetClosedAtTimes() {
  const Clock::time_point begin = Clock::now();
  if (begin < rest_until_) return;
  ForgetClosed();
  const Clock::time_point end = Clock::now();
  rest_until_ = end + std::min<Clock::duration>(kRestOfLook * (end - begin), kMostRest);
}

int OpenConnections::Count() {
  const MutexLock lock(mu_);
  ForgetClosed();
  return static_cast<int>(connections_.size());
}

int OpenConnections::CountOf(const std::string& peer) const {
  const auto found = peers_.find(peer);
  return found == peers_.end() ? 0 : static_cast<int>(found->second.size());
}

bool OpenConnections::HasRoomFor(const std::string& peer, int most) {
  const MutexLock lock(mu_);
  if (!IsFull(most)) return true;
  ForgetClosedAtTimes();
  if (!IsFull(most)) return true;
  const int share = std::max(most / kShares, 1);
  return CountOf(peer) < share && EndNewestOfLargest(share);
}

bool OpenConnections::EndNewestOfLargest(int share) {
  // By how many they are, then by how new the newest is.
  const auto is_less = [](const auto& a, const auto& b) {
    return std::pair(a.second.size(), a.second.rbegin()->first) < std::pair(b.second.size(), b.second.rbegin()->first);
  };
  const auto largest = std::max_element(peers_.begin(), peers_.end(), is_less);
  if (largest == peers_.end() || static_cast<int>(largest->second.size()) <= share) return false;
  const int fd = largest->second.rbegin()->second;
  const std::uint64_t inode = connections_.at(fd).inode;
  // One that was closed meanwhile leaves its place too.
  if (!ShutDownSocket(fd, inode) && SocketInode(fd) == inode) return false;
  Forget(fd);
  return true;
}

}  // namespace attend::server
