// A leak for the soak to find. LD_PRELOADed into the server, it loses memory and descriptors whenever the server sends:
// as much as is due by the time since the first answer. It stops at kMostBytes and kMostDescriptors.
//
//   PLANTED_LEAK_BYTES         an hour
//   PLANTED_LEAK_DESCRIPTORS   an hour

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 30, kPiece = 16 << 10;
constexpr int kMostDescriptors = 1000;

double Rate(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? 0 : std::strtod(text, nullptr);
}

void Leak() {
  static std::mutex mutex;
  static const auto start = std::chrono::steady_clock::now();
  static const double bytes_an_hour = Rate("PLANTED_LEAK_BYTES"),
                      descriptors_an_hour = Rate("PLANTED_LEAK_DESCRIPTORS");
  static std::size_t bytes = 0;
  static int descriptors = 0;
  [[maybe_unused]] static const void* volatile lost = nullptr;  // So that the compiler leaves the allocations in.

  const std::lock_guard<std::mutex> lock(mutex);
  const double hours =
      std::chrono::duration<double, std::ratio<3600>>(std::chrono::steady_clock::now() - start).count();
  while (bytes < kMostBytes && static_cast<double>(bytes + kPiece) <= hours * bytes_an_hour) {
    void* const piece = std::malloc(kPiece);
    if (piece == nullptr) return;
    lost = std::memset(piece, 1, kPiece);  // Only what is written to is resident.
    bytes += kPiece;
  }
  while (descriptors < kMostDescriptors && descriptors + 1 <= hours * descriptors_an_hour) {
    if (fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0) < 0) return;
    ++descriptors;
  }
}

}  // namespace

// gRPC writes to its connections with it.
extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static const auto real = reinterpret_cast<decltype(&sendmsg)>(dlsym(RTLD_NEXT, "sendmsg"));
  Leak();
  return real(fd, message, flags);
}
