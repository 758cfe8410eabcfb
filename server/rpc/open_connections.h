// The connections of the gRPC door that are open: whose they are, what they have received, and an end for those that
// must have one.
//
// Nobody reports that gRPC has closed a connection. So a connection counts for as long as its descriptor still is the
// socket that was accepted, which its inode number says: a descriptor's number is used again, a socket's inode is not
// while the system runs (the kernel counts to 2^32 first). Descriptors are looked at when the cap seems reached, and
// when somebody asks. At the cap each connection that comes would have all looked at, on the one thread that accepts:
// after a look that took long they have a rest, for which a connection that was closed may still count.
//
// Thread-safe.
#ifndef ATTEND_SERVER_RPC_OPEN_CONNECTIONS_H_
#define ATTEND_SERVER_RPC_OPEN_CONNECTIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// What the kernel says of a connection since its beginning.
struct ConnectionTraffic {
  std::int64_t number = 0;  // For OpenConnections::Abort.
  std::string peer;         // As CanonicalPeer.
  bool is_of_many = false;  // A trusted proxy's: many callers share it.
  std::int64_t read = 0;    // Bytes that gRPC has taken; what waits in the kernel is not among them.
  std::int64_t sent = 0;    // Bytes that the peer has acknowledged.
};

// One spelling of a peer that gRPC names: `ipv4:127.0.0.1:40000`, `ipv6:[::1]:40000`. gRPC 1.51 writes `%5B` and `%5D`.
std::string CanonicalPeer(const std::string& grpc_peer);

class OpenConnections {
 public:
  // REQUIRES: `fd` is open. `peer`: its address; empty: one that has no share. Its number, for Abort.
  std::int64_t Add(int fd, const std::string& peer) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether there may be one more of `peer`: there are fewer than `most`, or one of another peer's was closed for it.
  bool HasRoomFor(const std::string& peer, int most) ABSL_LOCKS_EXCLUDED(mu_);
  // Looks at each descriptor and forgets those that are closed.
  int Count() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the connection, if it is still open; whether it was. What it received and nobody has read is thrown away: gRPC
  // would still parse it.
  bool Abort(std::int64_t number) ABSL_LOCKS_EXCLUDED(mu_);
  // That of the next connection.
  std::int64_t next_number() const ABSL_LOCKS_EXCLUDED(mu_) {
    const MutexLock lock(mu_);
    return next_number_;
  }
  // Those over TCP; a Unix socket counts no bytes. A few system calls for each,
  // which is missing while descriptors are short.
  std::vector<ConnectionTraffic> Traffic() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Connection {
    std::uint64_t inode;
    std::string peer;
    std::int64_t number;  // In the order in which they came.
  };
  using Connections = absl::flat_hash_map<int, Connection>;
  // The descriptors of one peer's by their numbers.
  using OfPeer = std::map<std::int64_t, int>;

  bool IsFull(int most) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<int>(connections_.size()) >= most;
  }
  int CountOf(const std::string& peer) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Forget(int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The same, unless they have a rest.
  void ForgetClosedAtTimes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether the newest of the peer that has the most, if those are more than `share`, was closed.
  bool EndNewestOfLargest(int share) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  Connections connections_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, OfPeer> peers_ ABSL_GUARDED_BY(mu_);  // Of those that have a share.
  std::int64_t next_number_ ABSL_GUARDED_BY(mu_) = 0;
  Clock::time_point rest_until_ ABSL_GUARDED_BY(mu_);
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_OPEN_CONNECTIONS_H_
