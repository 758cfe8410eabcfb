#include "server/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "formats/files/file_writer.h"

namespace attend::server {
namespace {

// Wakes RunWhileListening when the work is done; nobody else sends it to a server.
constexpr int kWorkDone = SIGUSR2;

// More than a server with all its doors opens before its first connection: 20.
constexpr std::size_t kStartDescriptors = 32;

constexpr char kMoreThreads[] =
    "; raise the limit of processes (ulimit -u, TasksMax, pids) or set fewer --threads, --polling-threads";

// Allocates nothing, because memory may be what is short, and writes at once, so that no line of the log comes between.
void WriteSentence(const char* what, const char* detail = "", const char* advice = "") {
  const char* const parts[] = {"attend-server: ", what, detail, advice, "\n"};
  iovec pieces[std::size(parts)];
  for (std::size_t i = 0; i < std::size(parts); ++i) {
    pieces[i] = {.iov_base = const_cast<char*>(parts[i]), .iov_len = std::strlen(parts[i])};
  }
  [[maybe_unused]] const ssize_t nobody_can_be_told = writev(STDERR_FILENO, pieces, std::size(parts));
}

void WriteWhatWasThrown() {
  const std::exception_ptr thrown = std::current_exception();
  if (thrown == nullptr) return WriteSentence("ended by an error of its own");
  try {
    std::rethrow_exception(thrown);
  } catch (const std::system_error& error) {
    const bool is_thread = error.code() == std::errc::resource_unavailable_try_again;
    WriteSentence(is_thread ? "cannot start a thread: " : "ended by an error: ", error.what(),
                  is_thread ? kMoreThreads : "");
  } catch (const std::bad_alloc&) {
    WriteSentence("out of memory");
  } catch (const std::exception& error) {
    WriteSentence("ended by an error: ", error.what());
  } catch (...) {
    WriteSentence("ended by an error of its own");
  }
}

[[noreturn]] void EndStart() {
  WriteWhatWasThrown();
  _exit(1);
}

[[noreturn]] void EndServing() {
  WriteWhatWasThrown();
  std::abort();
}

}  // namespace

void ExplainTermination(Phase phase) { std::set_terminate(phase == Phase::kStart ? EndStart : EndServing); }

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
  std::thread worker;
  try {
    worker = std::thread([&work, listener] {
      work();
      pthread_kill(listener, kWorkDone);
    });
  } catch (const std::system_error&) {  // To end in good order matters more than to be hurried.
    return work();
  }
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

absl::Status CheckFreeDescriptors() {
  std::vector<int> opened;
  int error = 0;
  while (opened.size() < kStartDescriptors && error == 0) {
    const int fd = open("/", O_PATH | O_CLOEXEC);
    if (fd >= 0) opened.push_back(fd);
    error = fd < 0 ? errno : 0;
  }
  for (const int fd : opened) close(fd);
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("a start takes ", kStartDescriptors, " descriptors, and there are ",
                                                   opened.size(), " (", std::string(std::strerror(error)),
                                                   "); raise the limit of open files (ulimit -n, LimitNOFILE)"));
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
