#include "core/runtime/short_turns.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace attend {
namespace {

// The kernel's struct sched_attr in its first version (sched_setattr(2)); Debian 12's C library has none.
struct SchedulingAttributes {
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime;  // For an ordinary thread: the length of its turns, in nanoseconds.
  std::uint64_t deadline;
  std::uint64_t period;
};
static_assert(sizeof(SchedulingAttributes) == 48);

}  // namespace

bool AskForShortTurns(std::chrono::nanoseconds length) {
  constexpr int kThisThread = 0;
  constexpr unsigned kNoFlags = 0;
  SchedulingAttributes attributes{};
  if (syscall(SYS_sched_getattr, kThisThread, &attributes, sizeof(attributes), kNoFlags) != 0) return false;
  attributes.runtime = static_cast<std::uint64_t>(length.count());
  return syscall(SYS_sched_setattr, kThisThread, &attributes, kNoFlags) == 0;
}

}  // namespace attend
