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
// Thread-safe.
#ifndef ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_
#define ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_

#include <grpcpp/server_builder.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/identity/trusted_proxies.h"
#include "server/rpc/hand_over_guard.h"
#include "server/rpc/listen_address.h"
#include "server/rpc/open_connections.h"
#include "server/rpc/reading_thread.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

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
    // Told of each connection before it is handed over, on this object's thread. Empty: nobody.
    std::function<void()> on_accepted;
  };

  // Starts to accept. `receiver` is told of each connection on this object's thread, and must outlive it. Errors:
  // UNAVAILABLE when the system refuses the descriptor with which Stop wakes the thread.
  static absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> Start(std::vector<ListenSocket> listeners,
                                                                   Receiver& receiver, const Options& options);
  // Stops.
  ~ConnectionAcceptor();
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;

  // Accepts no more, and closes the listeners. Not concurrently with itself; once, then nothing.
  void Stop();

  // Connections that are open now; those that were closed because there were too many, or kept the thread.
  int open_connections() { return open_.Count(); }
  OpenConnections& connections() { return open_; }
  // On which gRPC makes first reads; it runs until Stop.
  const ReadingThread& thread() const { return thread_; }
  std::int64_t refused_connections() const { return refused_.load(std::memory_order_relaxed); }

 private:
  // Takes over `stop`.
  ConnectionAcceptor(std::vector<ListenSocket> listeners, Receiver& receiver, const Options& options, int stop);

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
  ReadingThread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CONNECTION_ACCEPTOR_H_
