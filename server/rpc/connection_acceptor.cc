#include "server/rpc/connection_acceptor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

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

}  // namespace

void OpenConnections::Add(int fd) {
  const std::uint64_t inode = SocketInode(fd);
  const MutexLock lock(mu_);
  inodes_.insert_or_assign(fd, inode);
}

int OpenConnections::Count() {
  const MutexLock lock(mu_);
  absl::erase_if(inodes_, [](const auto& entry) { return SocketInode(entry.first) != entry.second; });
  return static_cast<int>(inodes_.size());
}

int OpenConnections::CountAtMost() const {
  const MutexLock lock(mu_);
  return static_cast<int>(inodes_.size());
}

ConnectionAcceptor::ConnectionAcceptor(std::vector<ListenSocket> listeners, Receiver& receiver, const Options& options)
    : listeners_(std::move(listeners)),
      receiver_(receiver),
      options_(options),
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
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      HandOver(listener, fd);
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

void ConnectionAcceptor::HandOver(int listener, int fd) {
  if (open_.CountAtMost() >= options_.max_connections && open_.Count() >= options_.max_connections) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    close(fd);
    return;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // No error that matters for a Unix socket.
  open_.Add(fd);
  Receiver::NewConnectionParameters connection;
  connection.listener_fd = listener;
  connection.fd = fd;
  receiver_.HandleNewConnection(&connection);
}

}  // namespace attend::server
