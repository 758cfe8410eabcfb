#include "core/runtime/short_turns.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attend {
namespace {

// What the kernel itself says of the calling thread's turns, in nanoseconds; empty where it says nothing.
std::string Slice() {
  std::ifstream file(absl::StrCat("/proc/self/task/", syscall(SYS_gettid), "/sched"));
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "se.slice")) return line.substr(line.find_last_of(' ') + 1);
  }
  return "";
}

// Linux 6.12 and later.
bool KernelHasTurnsOfOnesOwn() {
  utsname system;
  int major = 0, minor = 0;
  EXPECT_EQ(uname(&system), 0);
  EXPECT_EQ(std::sscanf(system.release, "%d.%d", &major, &minor), 2) << system.release;
  return major > 6 || (major == 6 && minor >= 12);
}

TEST(ShortTurns, PriorityAndPolicyStayAndOtherThreadsToo) {
  const std::string before = Slice();
  std::thread([] {
    const auto thread = static_cast<id_t>(syscall(SYS_gettid));
    const int nice = std::min(19, getpriority(PRIO_PROCESS, thread) + 1);
    ASSERT_EQ(setpriority(PRIO_PROCESS, thread, nice), 0);
    const int policy = sched_getscheduler(0);
    const std::string slice = Slice();
    const bool worked = AskForShortTurns(std::chrono::microseconds(200));
    EXPECT_EQ(getpriority(PRIO_PROCESS, thread), nice);
    EXPECT_EQ(sched_getscheduler(0), policy);
    if (KernelHasTurnsOfOnesOwn() && worked && !Slice().empty()) {
      EXPECT_EQ(Slice(), "200000");
    } else {
      EXPECT_EQ(Slice(), slice);
    }
  }).join();
  EXPECT_EQ(Slice(), before);
}

}  // namespace
}  // namespace attend
