// From a --listen address to sockets that listen, and in words why one cannot be bound.
//
// The server binds and accepts by itself (connection_acceptor.h). gRPC 1.51 says in its log alone why it cannot bind,
// and of a name's addresses binds those it can, without a word.
#ifndef ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_
#define ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::server {

// A socket that listens, non-blocking; closed at the end. Thread-compatible.
class ListenSocket {
 public:
  // Takes over `fd`. `address` is what it is bound to, for people; `port` is 0 for a Unix socket.
  ListenSocket(int fd, std::string address, int port) : fd_(fd), address_(std::move(address)), port_(port) {}
  ListenSocket(ListenSocket&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), address_(std::move(other.address_)), port_(other.port_) {}
  ListenSocket& operator=(ListenSocket&& other) noexcept {
    std::swap(fd_, other.fd_);
    address_.swap(other.address_);
    std::swap(port_, other.port_);
    return *this;
  }
  ~ListenSocket();

  int fd() const { return fd_; }
  // Gives it up without closing it.
  int Release() { return std::exchange(fd_, -1); }
  const std::string& address() const { return address_; }
  int port() const { return port_; }

 private:
  int fd_;
  std::string address_;
  int port_;
};

// Listens on the addresses behind `address`, which is `host:port`: on all of them or on none. `flag` is what gave it.
//
// A name stands for all of its addresses, `localhost` for those of both families, with the same port on each, also
// where the system chooses it (port 0). An address of a family that this machine does not have is left out. Either
// wildcard (0.0.0.0, [::]) is one socket for all addresses of both families.
//
// Errors: UNAVAILABLE with one sentence that names `address` and `flag` and says what to do: the name does not resolve,
// the address is not this machine's, is in use, or needs a privilege. Blocks on name resolution; may be called
// concurrently.
absl::StatusOr<std::vector<ListenSocket>> ListenOn(const std::string& address, const std::string& flag = "--listen");

// A listening Unix socket that takes no other server's path.
//
// It is bound under a name of its own beside the path, and gets the path once it can be served:
//
//   a socket on which a server listens is left to it; the start is refused
//   a socket that a dead server left is replaced in one step (rename)
//   any other file is left alone; the start is refused
//   at the end the path is removed when it still is this server's socket
//
// Servers that start or end at the same path at the same time wait for each other, by a lock file in its folder that is
// there only meanwhile.
//
// Thread-compatible.
class UnixSocket {
 public:
  // Looks whether `path` is free. Errors: UNAVAILABLE with a sentence that names it and says what to do.
  static absl::StatusOr<std::unique_ptr<UnixSocket>> Reserve(const std::string& path);

  // Withdraws; a socket that was never published goes too.
  ~UnixSocket();
  UnixSocket(const UnixSocket&) = delete;
  UnixSocket& operator=(const UnixSocket&) = delete;

  // Listens under a name in the path's folder that nobody else has. Errors: UNAVAILABLE. REQUIRES: called at most once.
  absl::StatusOr<ListenSocket> Listen() const;

  // Gives the socket that listens its path. Errors: as Reserve, for a server that was quicker.
  absl::Status Publish();

  // Removes the path, if it is still this server's socket. Once; then nothing.
  void Withdraw();

 private:
  UnixSocket(std::string path, int folder, std::string name, std::string own_name);
  std::string NearPath(const std::string& name) const;
  absl::Status CheckFree() const;

  const std::string path_;
  const int folder_;            // The path's folder: it may be renamed, and its own path may be too long.
  const std::string name_;      // The path's last part.
  const std::string own_name_;  // What is bound.
  int own_ = -1;                // Once published: keeps the socket's inode number from being given to another.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_
