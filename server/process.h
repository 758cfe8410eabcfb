// What the server needs of the process it runs in.
#ifndef ATTEND_SERVER_PROCESS_H_
#define ATTEND_SERVER_PROCESS_H_

#include <csignal>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace attend::server {

// How std::terminate ends the process.
enum class Phase {
  kStart,    // With exit code 1, as every start that fails.
  kServing,  // By SIGABRT, so that a core is kept.
};

// From now on std::terminate first writes a sentence to standard error: what was thrown and, where threads are short,
// what to do about it. Nobody can catch that instead: an executor that got half of its threads cannot be destroyed.
void ExplainTermination(Phase phase);

// Blocks SIGTERM, SIGINT and SIGHUP so that they can be received with sigwait: in the thread that makes this object and
// in all that it starts later. REQUIRES: made before any other thread.
class ShutdownSignals {
 public:
  ShutdownSignals();

  // Returns when SIGTERM or SIGINT arrives. Each SIGHUP calls `reload`, if there is one, and ends nothing.
  void Wait(const std::function<void()>& reload = nullptr) const;

  // Runs `work` on another thread and returns when it is done; each SIGTERM and SIGINT that arrives in the
  // meantime calls `force_stop`. Where the system gives no thread, `work` runs on this one and nothing hurries it.
  void RunWhileListening(const std::function<void()>& work, const std::function<void()>& force_stop) const;

 private:
  sigset_t signals_;
};

// Whoever started this process and waits for it, as systemd does for units of Type=notify: named by NOTIFY_SOCKET in
// the environment. Without that, telling does nothing.
class ServiceManager {
 public:
  // REQUIRES: made before any other thread.
  ServiceManager();

  // Sends `state`, for example `READY=1` or `STOPPING=1` (sd_notify(3)). Errors: UNAVAILABLE with the system's reason.
  // May be called concurrently.
  absl::Status Tell(std::string_view state) const;

 private:
  std::string socket_;  // A path, or a name in Linux's abstract space behind an `@`; empty for none.
};

// Raises the limit of open files to the most that is allowed, because every connection takes one. Returns the limit now
// in force.
std::int64_t RaiseOpenFileLimit();

// Whether there are descriptors enough for a start: where gRPC and Asio find none they end the process. Errors:
// RESOURCE_EXHAUSTED with the system's reason.
absl::Status CheckFreeDescriptors();

// Turns off what gRPC 1.51 does better without, keeping what GRPC_EXPERIMENTS says already. REQUIRES: called before
// anything of gRPC, and before other threads are started.
//   tcp_read_chunks: counts what a connection has yet to read in an int; after 2 GiB of frames that nobody asked for it
//   is negative, and an assertion ends the process.
void ChooseGrpcExperiments();

// Writes one port a line, all or nothing: whoever sees the file can read it. Errors: UNAVAILABLE with the system's
// reason.
absl::Status WritePortFile(const std::string& path, const std::vector<int>& ports);

}  // namespace attend::server

#endif  // ATTEND_SERVER_PROCESS_H_
