#include "client/demo/demo_server.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

// POSIX declares it so.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
extern char** environ;

namespace attend::client {
namespace {

constexpr char kProgram[] = "attend-server";
constexpr absl::Duration kPatience = absl::Seconds(30);  // For the start, on a busy machine.
constexpr absl::Duration kPoll = absl::Milliseconds(10);

bool IsProgram(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

// Empty when there is no such file yet, or it cannot be read. An iterator over the file would throw then.
std::string Contents(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  return std::getline(file, text, '\0') ? text : "";
}

// The last lines of a log, indented.
std::string Tail(const std::string& path) {
  const std::vector<std::string> lines = absl::StrSplit(Contents(path), '\n', absl::SkipEmpty());
  std::string tail;
  for (std::size_t i = lines.size() > 5 ? lines.size() - 5 : 0; i < lines.size(); ++i) {
    absl::StrAppend(&tail, "\n  ", lines[i]);
  }
  return tail;
}

// Pointers to the elements, as exec takes them.
std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Becomes the server. Calls nothing that a child of a process may not call.
[[noreturn]] void Become(const char* path, char* const* arguments, char* const* environment, const char* log,
                         pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (out >= 0 && getppid() == parent) {
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execve(path, arguments, environment);
  }
  _exit(127);
}

sigset_t Interrupts() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  return signals;
}

}  // namespace

absl::StatusOr<std::string> FindServerProgram() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::vector<std::filesystem::path> folders = {self.parent_path()};
  const char* const path = std::getenv("PATH");
  for (const absl::string_view folder : absl::StrSplit(path == nullptr ? "" : path, ':', absl::SkipEmpty())) {
    folders.emplace_back(std::string(folder));
  }
  for (const std::filesystem::path& folder : folders) {
    if (IsProgram(folder / kProgram)) return (folder / kProgram).string();
  }
  return absl::NotFoundError(absl::StrCat("there is no attend-server in ", self.parent_path().string(),
                                          " or on the PATH; install it, or build it"));
}

absl::StatusOr<std::unique_ptr<DemoServer>> DemoServer::Start(const std::string& path,
                                                              const std::vector<std::string>& flags) {
  std::error_code error;
  std::string folder = (std::filesystem::temp_directory_path(error) / "attend-demo-XXXXXX").string();
  if (error) return absl::UnknownError(absl::StrCat("there is no folder for temporary files: ", error.message()));
  if (mkdtemp(folder.data()) == nullptr) {
    return absl::UnknownError(absl::StrCat("cannot make a temporary folder: ", std::strerror(errno)));
  }
  std::vector<std::string> arguments = {path,           "--listen", "127.0.0.1:0", "--port-file", folder + "/port",
                                        "--drain-wait", "0s"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!absl::StartsWith(*variable, "ATTEND_")) environment.emplace_back(*variable);
  }
  const std::vector<char*> argument_list = Pointers(arguments), environment_list = Pointers(environment);
  const std::string log = folder + "/log";
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Become(path.c_str(), argument_list.data(), environment_list.data(), log.c_str(), parent);
  const int fork_error = errno;
  std::unique_ptr<DemoServer> server(new DemoServer(std::move(folder), pid));
  if (pid < 0) return absl::UnknownError(absl::StrCat("cannot start a process: ", std::strerror(fork_error)));
  if (absl::Status status = server->WaitForPorts(); !status.ok()) return status;
  return server;
}

bool DemoServer::HasEnded() {
  // Where SIGCHLD is ignored, as by some who start this program, the kernel has forgotten it: ECHILD.
  if (waitpid(pid_, nullptr, WNOHANG) == 0) return false;
  pid_ = -1;
  return true;
}

absl::Status DemoServer::WaitForPorts() {
  const absl::Time end = absl::Now() + kPatience;
  while (absl::Now() < end) {
    const std::string ports = Contents(folder_ + "/port");
    if (absl::EndsWith(ports, "\n")) {
      for (const absl::string_view port : absl::StrSplit(ports, '\n', absl::SkipEmpty())) {
        addresses_.push_back(absl::StrCat("127.0.0.1:", port));
      }
      return absl::OkStatus();
    }
    if (HasEnded()) return absl::UnknownError(absl::StrCat("attend-server did not start:", Tail(folder_ + "/log")));
    absl::SleepFor(kPoll);
  }
  return absl::UnknownError(absl::StrCat("attend-server did not start within ", absl::FormatDuration(kPatience), ":",
                                         Tail(folder_ + "/log")));
}

void DemoServer::HoldInterrupts() {
  const sigset_t signals = Interrupts();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

absl::Status DemoServer::WaitForInterrupt() {
  const sigset_t signals = Interrupts();
  constexpr timespec kLook = {.tv_sec = 0, .tv_nsec = 200'000'000};
  while (sigtimedwait(&signals, nullptr, &kLook) < 0) {
    if (HasEnded()) return absl::UnknownError(absl::StrCat("attend-server has ended:", Tail(folder_ + "/log")));
  }
  return absl::OkStatus();
}

DemoServer::~DemoServer() {
  if (pid_ > 0) {
    kill(pid_, SIGTERM);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

}  // namespace attend::client
