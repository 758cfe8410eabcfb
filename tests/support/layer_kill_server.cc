// attend-server, but it kills itself at one step of what it does to its data folder, as a crash or a loss of power
// might:
//
//   ATTEND_KILL_AT_STEP=3 layer_kill_server FLAGS OF ATTEND-SERVER
//
// Steps are those of server::StorageStep, counted from 0 over the whole life of the process. Without the variable it
// prints each step's number to standard output instead.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/attention_server.h"
#include "server/config/flags.h"
#include "server/process.h"

int main(int argc, char** argv) {
  using namespace attend::server;  // NOLINT(google-build-using-namespace): this is a whole program.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const ShutdownSignals signals;
  const auto flags = ParseFlags(std::vector<std::string>(argv + 1, argv + argc), {});
  if (!flags.ok()) {
    std::cerr << flags.status() << "\n";
    return 2;
  }
  const char* const text = std::getenv("ATTEND_KILL_AT_STEP");
  const int fatal = text == nullptr ? -1 : std::atoi(text);
  std::atomic<int> next{0};
  Log log({.level = ParseLogLevel(flags->config.log_level)});
  auto server = AttentionServer::Start(flags->config, log, [&next, fatal](StorageStep step) {
    if (next.fetch_add(1) == fatal) kill(getpid(), SIGKILL);
    std::cout << "step " << static_cast<int>(step) << std::endl;
  });
  if (!server.ok() || !WritePortFile(flags->config.port_file, (*server)->ports()).ok()) {
    std::cerr << server.status() << "\n";
    return 1;
  }
  signals.Wait();
  (*server)->Drain();
  return 0;
}
