// A listening Unix socket that takes nobody's place.
//
// gRPC 1.51 removes whatever socket has the path when it binds, and again when it ends, whosever it is then. So gRPC
// binds a name of its own beside the path, and this class gives the socket its path, and takes it back:
//
//   a socket on which a server listens is left to it; the start is refused
//   a socket that a dead server left is replaced in one step (rename)
//   any other file is left alone; the start is refused
//   at the end the path is removed when it still is this server's socket
//
// Servers that start or end at the same path at the same time wait for each other, by a lock file in its folder that is
// there only meanwhile.
#ifndef ATTEND_SERVER_RPC_UNIX_SOCKET_H_
#define ATTEND_SERVER_RPC_UNIX_SOCKET_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::server {

// Thread-compatible.
class UnixSocket {
 public:
  // Looks whether `path` is free. Errors: UNAVAILABLE with a sentence that names it and says what to do.
  static absl::StatusOr<std::unique_ptr<UnixSocket>> Reserve(const std::string& path);

  // Withdraws.
  ~UnixSocket();
  UnixSocket(const UnixSocket&) = delete;
  UnixSocket& operator=(const UnixSocket&) = delete;

  // What gRPC has to bind: `unix:` and a name in the path's folder that nobody else has.
  std::string address_to_bind() const;

  // Gives the socket that is bound now its path. Errors: as Reserve, for a server that was quicker.
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
  const std::string own_name_;  // What gRPC binds.
  int own_ = -1;                // Once published: keeps the socket's inode number from being given to another.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_UNIX_SOCKET_H_
