// A server of one's own for as long as a command runs.
#ifndef ATTEND_CLIENT_DEMO_DEMO_SERVER_H_
#define ATTEND_CLIENT_DEMO_DEMO_SERVER_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attend::client {

// The process of an `attend-server` on a free port of the loopback interface, which ends with this object, or when this
// process ends in any other way. Not thread-safe.
class DemoServer {
 public:
  // Starts the program at `path` with `flags`, and waits until it takes calls. None of the ATTEND_* variables of this
  // process reaches it. Errors: UNKNOWN with what the server wrote when it does not start.
  //
  // Forks: REQUIRES that no thread of gRPC runs yet.
  static absl::StatusOr<std::unique_ptr<DemoServer>> Start(const std::string& path,
                                                           const std::vector<std::string>& flags);

  // Sends SIGTERM and waits for the end.
  ~DemoServer();
  DemoServer(const DemoServer&) = delete;
  DemoServer& operator=(const DemoServer&) = delete;

  // `127.0.0.1:43211`.
  const std::string& address() const { return addresses_.front(); }

  // That of the HTTP door, with a flag among `flags` that opens it; else as address().
  const std::string& http_address() const { return addresses_.back(); }

  // From here on an interrupt (SIGINT, SIGTERM, SIGHUP) of this process waits for WaitForInterrupt, in this thread and
  // those that it starts.
  static void HoldInterrupts();

  // Blocks until somebody interrupts this process or the server ends by itself, which is an error: UNKNOWN with what
  // the server wrote. REQUIRES: HoldInterrupts was called.
  absl::Status WaitForInterrupt();

 private:
  DemoServer(std::string folder, pid_t pid) : folder_(std::move(folder)), pid_(pid) {}

  absl::Status WaitForPorts();
  bool HasEnded();

  const std::string folder_;  // Of its port file and its log; removed at the end.
  pid_t pid_ = -1;            // -1 when it has ended.
  std::vector<std::string> addresses_;
};

// The program `attend-server` beside this one, or else the first on the PATH. Errors: NOT_FOUND.
absl::StatusOr<std::string> FindServerProgram();

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DEMO_DEMO_SERVER_H_
