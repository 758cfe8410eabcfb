#include "server/process.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "formats/files/file_writer.h"

namespace attend::server {
namespace {

// Wakes RunWhileListening when the work is done; nobody else sends it to a server.
constexpr int kWorkDone = SIGUSR2;

}  // namespace

ShutdownSignals::ShutdownSignals() {
  sigemptyset(&signals_);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, kWorkDone}) sigaddset(&signals_, signal);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  // A log reader or client that goes away, and a file at the limit of its size (ulimit -f), are error codes of a write,
  // not the end of the server.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void ShutdownSignals::Wait(const std::function<void()>& reload) const {
  for (int signal = kWorkDone; signal != SIGTERM && signal != SIGINT;) {
    sigwait(&signals_, &signal);
    if (signal == SIGHUP && reload) reload();
  }
}

void ShutdownSignals::RunWhileListening(const std::function<void()>& work,
                                        const std::function<void()>& force_stop) const {
  const pthread_t listener = pthread_self();
  std::thread worker([&work, listener] {
    work();
    pthread_kill(listener, kWorkDone);
  });
  for (int signal = 0; signal != kWorkDone;) {
    sigwait(&signals_, &signal);
    if (signal != kWorkDone && signal != SIGHUP) force_stop();
  }
  worker.join();
}

ServiceManager::ServiceManager() {
  const char* const socket = std::getenv("NOTIFY_SOCKET");  // NOLINT(concurrency-mt-unsafe): no other thread runs yet.
  if (socket != nullptr) socket_ = socket;
}

absl::Status ServiceManager::Tell(std::string_view state) const {
  if (socket_.empty()) return absl::OkStatus();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_.size() >= sizeof(address.sun_path)) return absl::UnavailableError("NOTIFY_SOCKET is too long");
  socket_.copy(address.sun_path, socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool told = fd >= 0 && sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                                      reinterpret_cast<const sockaddr*>(&address), size) >= 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (told) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("NOTIFY_SOCKET ", socket_, ": ", std::string(std::strerror(error))));
}

std::int64_t RaiseOpenFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<std::int64_t>(limit.rlim_cur);
}

void ChooseGrpcExperiments() {
  constexpr char kVariable[] = "GRPC_EXPERIMENTS";
  const char* const chosen = std::getenv(kVariable);  // NOLINT(concurrency-mt-unsafe): no other thread runs yet.
  const std::string experiments =
      absl::StrCat(chosen == nullptr ? "" : chosen, chosen == nullptr ? "" : ",", "-tcp_read_chunks");
  setenv(kVariable, experiments.c_str(), /*replace=*/1);  // NOLINT(concurrency-mt-unsafe)
}

absl::Status WritePortFile(const std::string& path, const std::vector<int>& ports) {
  std::string lines;
  for (const int port : ports) absl::StrAppend(&lines, port, "\n");
  const absl::Status written = WriteFile(path, lines);
  return written.ok() ? written : absl::UnavailableError(absl::StrCat("--port-file: ", written.message()));
}

}  // namespace attend::server
