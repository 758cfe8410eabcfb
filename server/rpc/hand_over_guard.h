// Ends a connection that occupies the thread which hands it to gRPC.
//
// gRPC 1.51 makes the first read of a connection on that thread, and reads on for as long as it finds bytes: a peer who
// never stops sending would shut out all new connections. A client that waits for the server's SETTINGS, as gRPC's own
// do, has sent a few bytes by then.
//
// Thread-safe, except that connections are handed over one after the other.
#ifndef ATTEND_SERVER_RPC_HAND_OVER_GUARD_H_
#define ATTEND_SERVER_RPC_HAND_OVER_GUARD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class HandOverGuard {
 public:
  // `end` shuts down the connection whose number is given, on the guard's thread; it is called once `patience` has
  // passed between Begin and End, and again after each further one.
  HandOverGuard(Clock::duration patience, std::function<void(std::int64_t)> end);
  ~HandOverGuard();
  HandOverGuard(const HandOverGuard&) = delete;
  HandOverGuard& operator=(const HandOverGuard&) = delete;

  void Begin(std::int64_t connection) ABSL_LOCKS_EXCLUDED(mu_);
  void End() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  static constexpr std::int64_t kNone = -1;

  const Clock::duration patience_;
  const std::function<void(std::int64_t)> end_;
  Mutex mu_;
  CondVar changed_;
  std::int64_t connection_ ABSL_GUARDED_BY(mu_) = kNone;
  Clock::time_point until_ ABSL_GUARDED_BY(mu_);
  bool sleeps_ ABSL_GUARDED_BY(mu_) = false;  // Until somebody signals.
  bool stops_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_HAND_OVER_GUARD_H_
