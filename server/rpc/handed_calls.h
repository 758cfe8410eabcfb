// What reaches the server's methods from each connection, while somebody wants to know.
//
// gRPC does not say how many of a connection's bytes belong to calls. Counting costs some hundred nanoseconds for each
// call and message, so it is off until ConnectionGuard has an inquiry; off, it costs one relaxed load. Only calls that
// end before their message has come, and streams, are noted always.
//
// Thread-safe.
#ifndef ATTEND_SERVER_RPC_HANDED_CALLS_H_
#define ATTEND_SERVER_RPC_HANDED_CALLS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// Of one connection, since counting began.
struct Handed {
  std::int64_t calls = 0;     // That were open then or have arrived since.
  std::int64_t messages = 0;  // That came whole, and their bytes.
  std::int64_t bytes = 0;
  // Those of the calls that may have been receiving a message that has not come whole. It may never: calls that were
  // refused meanwhile count as well.
  std::int64_t receiving = 0;
};

class HandedCalls {
 public:
  using ByPeer = absl::flat_hash_map<std::string, Handed>;  // By CanonicalPeer.

  bool counting() const { return counting_.load(std::memory_order_relaxed); }

  // Begins anew, with nothing.
  void Start() ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  // A call is there or has arrived. `peer` as gRPC names it.
  void AddCall(const std::string& peer, bool is_receiving) ABSL_LOCKS_EXCLUDED(mu_);
  // `is_last`: the call will receive no further one.
  void AddMessage(const std::string& peer, std::int64_t bytes, bool is_last) ABSL_LOCKS_EXCLUDED(mu_);

  // A call ends that may be receiving still: what is on its way comes without it. Also while nothing is counted.
  void NoteEnded(const std::string& peer, Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);
  // Counts those that ended within the last two seconds, the last 256 at most, as calls that may be receiving.
  void AddEnded(Clock::time_point now) ABSL_LOCKS_EXCLUDED(mu_);

  ByPeer Counted() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::atomic<bool> counting_{false};
  mutable Mutex mu_;
  ByPeer by_peer_ ABSL_GUARDED_BY(mu_);
  struct Ended {
    std::string peer;  // CanonicalPeer; empty: none yet.
    Clock::time_point time;
  };
  std::array<Ended, 256> ended_ ABSL_GUARDED_BY(mu_);  // A ring.
  std::size_t next_ended_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_HANDED_CALLS_H_
