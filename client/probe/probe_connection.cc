#include "client/probe/probe_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/time/clock.h"

namespace attend::client {
namespace {

// Waits for a connection that is on its way. 0, or errno.
int WaitForConnection(int fd, absl::Time end) {
  pollfd connected{.fd = fd, .events = POLLOUT, .revents = 0};
  for (;;) {
    const auto left = std::max<std::int64_t>(absl::ToInt64Milliseconds(end - absl::Now()), 0);
    const int ready = poll(&connected, 1, static_cast<int>(left));
    if (ready > 0) break;
    if (ready == 0) return ETIMEDOUT;
    if (errno != EINTR) return errno;
  }
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

// Connects `fd`, whose timeout is `patience`. 0, or errno.
int Connect(int fd, const SocketAddress& address, absl::Duration patience) {
  const absl::Time end = absl::Now() + patience;
  while (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) {
    const int error = errno;
    if (error == EINPROGRESS || error == EAGAIN) return ETIMEDOUT;
    if (error != EINTR) return error;
    // A process that is stopped and goes on ends connect early, and TCP connects on: asked again, it would say so.
    if (address.storage.ss_family != AF_UNIX) return WaitForConnection(fd, end);
    if (absl::Now() >= end) return ETIMEDOUT;
  }
  return 0;
}

}  // namespace

ProbeConnection::ProbeConnection(const SocketAddress& address, absl::Time deadline)
    : fd_(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)), error_(fd_ < 0 ? errno : 0) {
  if (fd_ < 0) return;
  const absl::Duration patience =
      std::clamp(deadline - absl::Now(), absl::Milliseconds(1), kProbeStep);  // 0 would be for ever.
  const timeval timeout = absl::ToTimeval(patience);
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  error_ = Connect(fd_, address, patience);
}

ProbeConnection::~ProbeConnection() {
  if (fd_ >= 0) close(fd_);
}

ProbeResult ProbeConnection::Failure() const {
  switch (error_) {
    case ECONNREFUSED:
    case ENOENT: return {Finding::kRefused, std::strerror(error_)};  // A Unix socket may lack its server, or its file.
    case EAFNOSUPPORT:
    case EADDRNOTAVAIL:
    case ENETUNREACH: return {Finding::kNoWay, std::strerror(error_)};
    default: return {Finding::kUnreachable, std::strerror(error_)};
  }
}

}  // namespace attend::client
