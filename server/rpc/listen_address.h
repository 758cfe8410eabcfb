// From a --listen address to the addresses that gRPC binds, and in words why one cannot be bound.
//
// gRPC 1.51 says in its log alone why it cannot bind, and of a name's addresses binds those it can, without a word.
#ifndef ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_
#define ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::server {

// The numeric `host:port` addresses behind `listen`, which is `host:port`, all of them free at the moment. `flag` is
// what gave it.
//
// A name stands for all of its addresses, `localhost` for those of both families, with the same port on each, also
// where the system chooses it (port 0). An address of a family that this machine does not have is left out. Wildcards
// (0.0.0.0, [::]) are returned as they are: gRPC takes either for all addresses of both families.
//
// Errors: UNAVAILABLE with one sentence that names `listen` and `flag` and says what to do: the name does not resolve,
// the address is not this machine's, is in use, or needs a privilege. Blocks on name resolution; may be called
// concurrently.
absl::StatusOr<std::vector<std::string>> ResolveListenAddress(const std::string& listen,
                                                              const std::string& flag = "--listen");

// A listening Unix socket that takes no other server's path.
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
//
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

#endif  // ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_
