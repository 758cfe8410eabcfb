// The built attend-server binary as a child process, on a free port of 127.0.0.1.
//
//   ServerProcess server({.flags = {"--threads=1"}});
//   ... CallRaw(MakeTestChannel(server.address()), ...) ...
//   EXPECT_EQ(server.Terminate(), 0);
//
// Whatever is still running at the end of the test is killed. Thread-compatible.
#ifndef ATTEND_TESTS_SUPPORT_SERVER_PROCESS_H_
#define ATTEND_TESTS_SUPPORT_SERVER_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace attend::testing {

struct ServerProcessOptions {
  // In addition to --listen=127.0.0.1:0 and --port-file; the drain does not wait unless --drain-wait says so.
  std::vector<std::string> flags;
  // Added to an environment without other ATTEND_ variables; `NAME=value` each.
  std::vector<std::string> environment;
  // Whether to wait until the server takes calls; otherwise port() must not be called.
  bool wait_until_ready = true;
};

class ServerProcess {
 public:
  // Aborts the test program, with the server's log, when it is not ready after 30 s.
  explicit ServerProcess(const ServerProcessOptions& options = {});
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  pid_t pid() const { return pid_; }

  // From fork to the first call being possible.
  std::chrono::milliseconds startup_time() const { return startup_time_; }

  void Signal(int signal) const;
  // Waits for the end, and kills what has not ended after a minute. The exit code; 128 + n when signal n ended it.
  int Wait();
  // SIGTERM and Wait.
  int Terminate();

  // What it has written so far.
  std::string standard_output() const;
  std::string standard_error() const;

 private:
  void WaitUntilReady();

  const TemporaryFolder folder_;
  pid_t pid_ = -1;
  int port_ = 0;
  std::chrono::milliseconds startup_time_{};
};

// The attend-server of this build.
std::string ServerBinaryPath();

// A whole file; empty when there is none.
std::string ReadFile(const std::string& path);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_SERVER_PROCESS_H_
