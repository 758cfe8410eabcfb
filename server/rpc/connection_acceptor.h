// Accepts connections and hands them to gRPC.
//
// gRPC 1.51 ends accepting for good at the first EMFILE (CVE-2023-4785) and bounds connections by nothing. Here one
// thread accepts for all listeners: out of descriptors it waits and goes on when there are some, and a connection
// beyond `max_connections` is closed at once, so that its peer hears of it and tries another server.
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
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"
#include "server/rpc/listen_address.h"

namespace attend::server {

// The connections that were handed over and are still open. Thread-safe.
class OpenConnections {
 public:
  // REQUIRES: `fd` is open.
  void Add(int fd) ABSL_LOCKS_EXCLUDED(mu_);
  // Looks at each descriptor and forgets those that are closed.
  int Count() ABSL_LOCKS_EXCLUDED(mu_);
  // At least as many as are open; costs nothing.
  int CountAtMost() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable Mutex mu_;
  absl::flat_hash_map<int, std::uint64_t> inodes_ ABSL_GUARDED_BY(mu_);
};

class ConnectionAcceptor {
 public:
  using Receiver = grpc::experimental::ExternalConnectionAcceptor;

  struct Options {
    // The most connections at a time; at least 1.
    int max_connections = 1;
  };

  // Starts to accept. `receiver` is told of each connection on this object's thread, and must outlive it.
  ConnectionAcceptor(std::vector<ListenSocket> listeners, Receiver& receiver, const Options& options);
  // Stops.
  ~ConnectionAcceptor();
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;

  // Accepts no more, and closes the listeners. Not concurrently with itself; once, then nothing.
  void Stop();

  // Connections that are open now; those that were closed at once because there were too many.
  int open_connections() { return open_.Count(); }
  std::int64_t refused_connections() const { return refused_.load(std::memory_order_relaxed); }

 private:
  void Run();
  // Whether to go on at once; not when descriptors are short.
  bool AcceptSome(int listener);
  void HandOver(int listener, int fd);

  std::vector<ListenSocket> listeners_;
  Receiver& receiver_;
  const Options options_;
  OpenConnections open_;
  std::atomic<std::int64_t> refused_{0};
  const int stop_;  // An eventfd that is readable from Stop on.
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_
