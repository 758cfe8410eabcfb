#include "tests/support/server_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string_view>
#include <thread>

namespace attend::testing {
namespace {

constexpr std::chrono::seconds kReadyTimeout(30);
constexpr std::chrono::minutes kEndTimeout(1);
constexpr std::chrono::milliseconds kPollInterval(2);

std::vector<std::string> Environment(const std::vector<std::string>& added) {
  std::vector<std::string> environment = {"ATTEND_DRAIN_WAIT=0s"};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::string_view(*variable).substr(0, 7) != "ATTEND_") environment.emplace_back(*variable);
  }
  // The first of two variables with one name wins.
  environment.insert(environment.begin(), added.begin(), added.end());
  return environment;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// In the child between fork and exec: only what is safe there.
void Redirect(int descriptor, const char* path) {
  const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(file, descriptor);
}

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "ServerProcess: " << what << std::endl;
  std::abort();
}

}  // namespace

std::string ServerBinaryPath() { return ATTEND_SERVER_BINARY; }

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

ServerProcess::ServerProcess(const ServerProcessOptions& options) {
  std::vector<std::string> arguments = {ServerBinaryPath(), "--listen=127.0.0.1:0",
                                        "--port-file=" + folder_.path() + "/port"};
  arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
  std::vector<std::string> environment = Environment(options.environment);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(environment);
  const std::string out = folder_.path() + "/out";
  const std::string err = folder_.path() + "/err";

  const auto start = std::chrono::steady_clock::now();
  pid_ = fork();
  if (pid_ == 0) {
    Redirect(STDOUT_FILENO, out.c_str());
    Redirect(STDERR_FILENO, err.c_str());
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  if (options.wait_until_ready) WaitUntilReady();
  startup_time_ = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
}

void ServerProcess::WaitUntilReady() {
  const auto deadline = std::chrono::steady_clock::now() + kReadyTimeout;
  while (std::chrono::steady_clock::now() < deadline) {
    if (const std::string text = ReadFile(folder_.path() + "/port"); !text.empty()) {
      port_ = std::atoi(text.c_str());
      return;
    }
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      Fail("ended before it was ready:\n" + standard_error());
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  Fail("not ready in time:\n" + standard_error());
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) {
    Signal(SIGKILL);
    Wait();
  }
}

void ServerProcess::Signal(int signal) const {
  if (pid_ > 0) kill(pid_, signal);
}

int ServerProcess::Wait() {
  int status = 0;
  if (pid_ <= 0) return -1;
  const auto deadline = std::chrono::steady_clock::now() + kEndTimeout;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) Signal(SIGKILL);
    std::this_thread::sleep_for(kPollInterval);
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int ServerProcess::Terminate() {
  Signal(SIGTERM);
  return Wait();
}

std::string ServerProcess::standard_output() const { return ReadFile(folder_.path() + "/out"); }
std::string ServerProcess::standard_error() const { return ReadFile(folder_.path() + "/err"); }

}  // namespace attend::testing
