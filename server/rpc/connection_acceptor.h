// Accepts connections and hands them to gRPC.
//
// gRPC 1.51 ends accepting for good at the first EMFILE (CVE-2023-4785) and bounds connections by nothing. Here one
// thread accepts for all listeners: out of descriptors it waits and goes on when there are some, and a connection
// beyond `max_connections` is closed at once, so that its peer hears of it and tries another server. One address may
// have all connections; when one with less than a quarter of them wants another, the address with the most loses its
// newest, if it has more than a quarter.
//
// gRPC makes the first read of a connection on this thread; a connection that occupies it for two seconds is shut down.
//
// Nobody reports that gRPC has closed a connection. So a connection counts for as long as its descriptor still is the
// socket that was accepted, which its inode number says: a descriptor's number is used again, a socket's inode is not
// while the system runs (the kernel counts to 2^32 first). Descriptors are looked at when the cap seems reached, and
// when somebody asks.
//
// Thread-safe.
#ifndef ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_
#define ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_

#include <grpcpp/server_builder.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"
#include "server/identity/trusted_proxies.h"
#include "server/rpc/hand_over_guard.h"
#include "server/rpc/listen_address.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// The connections that were handed over and are still open. Thread-safe.
class OpenConnections {
 public:
  // REQUIRES: `fd` is open. `peer`: its address; empty: one that has no share. Its number, for ShutDown.
  std::int64_t Add(int fd, const std::string& peer) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether there may be one more of `peer`: there are fewer than `most`, or one of another peer's was closed for it.
  bool HasRoomFor(const std::string& peer, int most) ABSL_LOCKS_EXCLUDED(mu_);
  // Looks at each descriptor and forgets those that are closed.
  int Count() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the connection, if it is still open; whether it was.
  bool ShutDown(std::int64_t number) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Connection {
    std::uint64_t inode;
    std::string peer;
    std::int64_t number;  // In the order in which they came.
  };
  using Connections = absl::flat_hash_map<int, Connection>;

  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The newest of the peer that has the most, if those are more than `share`; end() otherwise.
  Connections::iterator NewestOfLargest(const absl::flat_hash_map<std::string, int>& counts, int share)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  Connections connections_ ABSL_GUARDED_BY(mu_);
  std::int64_t next_number_ ABSL_GUARDED_BY(mu_) = 0;
};

class ConnectionAcceptor {
 public:
  using Receiver = grpc::experimental::ExternalConnectionAcceptor;

  struct Options {
    // The most connections at a time; at least 1.
    int max_connections = 1;
    // Whose connections have no share: they are many callers'.
    TrustedProxies proxies;
    // How long a connection may occupy this object's thread.
    Clock::duration hand_over_patience = std::chrono::seconds(2);
  };

  // Starts to accept. `receiver` is told of each connection on this object's thread, and must outlive it.
  ConnectionAcceptor(std::vector<ListenSocket> listeners, Receiver& receiver, const Options& options);
  // Stops.
  ~ConnectionAcceptor();
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;

  // Accepts no more, and closes the listeners. Not concurrently with itself; once, then nothing.
  void Stop();

  // Connections that are open now; those that were closed because there were too many, or kept the thread.
  int open_connections() { return open_.Count(); }
  std::int64_t refused_connections() const { return refused_.load(std::memory_order_relaxed); }

 private:
  void Run();
  // Whether to go on at once; not when descriptors are short.
  bool AcceptSome(int listener);
  void HandOver(int listener, int fd, const std::string& peer);

  std::vector<ListenSocket> listeners_;
  Receiver& receiver_;
  const Options options_;
  OpenConnections open_;
  std::atomic<std::int64_t> refused_{0};
  std::int64_t last_kept_ = -1;  // The connection that the guard has shut down last; of its thread.
  HandOverGuard guard_;
  const int stop_;  // An eventfd that is readable from Stop on.
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_
