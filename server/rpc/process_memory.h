// Memory of this process that no file stands behind, which is what a container's limit counts and cannot take back.
#ifndef ATTEND_SERVER_RPC_PROCESS_MEMORY_H_
#define ATTEND_SERVER_RPC_PROCESS_MEMORY_H_

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>

namespace attend::server {

// Keeps the file open, so that a look is one system call. Thread-safe.
class ProcessMemory {
 public:
  ProcessMemory() : fd_(open("/proc/self/statm", O_RDONLY | O_CLOEXEC)) {}
  ~ProcessMemory() {
    if (fd_ >= 0) close(fd_);
  }
  ProcessMemory(const ProcessMemory&) = delete;
  ProcessMemory& operator=(const ProcessMemory&) = delete;

  // Resident bytes without those of files; 0 when the system does not say.
  std::int64_t AnonymousBytes() const {
    std::array<char, 128> text{};
    if (fd_ < 0 || pread(fd_, text.data(), text.size() - 1, 0) <= 0) return 0;
    long long resident = 0, shared = 0;  // NOLINT(google-runtime-int): as sscanf has it.
    if (std::sscanf(text.data(), "%*s %lld %lld", &resident, &shared) != 2) return 0;
    return static_cast<std::int64_t>(resident - shared) * page_bytes_;
  }

 private:
  const int fd_;
  const std::int64_t page_bytes_ = sysconf(_SC_PAGESIZE);
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_PROCESS_MEMORY_H_
