#include "core/runtime/cpu.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attend {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;

// Linux 6.12 and later: an ordinary thread's turns can have a length of their own.
bool KernelHasTurnsOfOnesOwn() {
  utsname system;
  int major = 0, minor = 0;
  EXPECT_EQ(uname(&system), 0);
  EXPECT_EQ(std::sscanf(system.release, "%d.%d", &major, &minor), 2) << system.release;
  return major > 6 || (major == 6 && minor >= 12);
}

// The length of the calling thread's turns as sched_getattr(2) has it: `runtime`, the fourth 64-bit word. A kernel
// before 6.12 says 0 of an ordinary thread.
nanoseconds Turn() {
  std::uint64_t words[6] = {};
  EXPECT_EQ(syscall(SYS_sched_getattr, 0, words, sizeof(words), 0), 0) << std::strerror(errno);
  return nanoseconds(static_cast<std::int64_t>(words[3]));
}

// The same from another source, where the kernel was built with it: -1 if it was not.
nanoseconds TurnInProc() {
  std::ifstream file(absl::StrCat("/proc/self/task/", syscall(SYS_gettid), "/sched"));
  for (std::string line; std::getline(file, line);) {
    std::int64_t length = -1;
    if (absl::StartsWith(line, "se.slice") && absl::SimpleAtoi(line.substr(line.find_last_of(' ') + 1), &length)) {
      return nanoseconds(length);
    }
  }
  return nanoseconds(-1);
}

void OnNewThread(const std::function<void()>& body) { std::thread(body).join(); }

// What is asked for is what the kernel then says, at both ends of the range too. An older kernel changes nothing.
TEST(ShortSlice, AreAsLongAsAskedForWhereTheKernelHasThem) {
  const bool has = KernelHasTurnsOfOnesOwn();
  for (const microseconds length : {microseconds(100), microseconds(200), microseconds(100'000)}) {
    OnNewThread([has, length] {
      const nanoseconds before = Turn(), before_in_proc = TurnInProc();
      EXPECT_NE(before, length) << "the question must not be answered before it is asked";
      const bool asked = RequestShortSlice(length);
      EXPECT_TRUE(asked || !has);
      EXPECT_EQ(Turn(), has ? nanoseconds(length) : before);
      EXPECT_EQ(TurnInProc(), has && before_in_proc.count() >= 0 ? nanoseconds(length) : before_in_proc);
    });
  }
}

TEST(ShortSlice, ThreadsStartedLaterInheritThem) {
  OnNewThread([] {
    RequestShortSlice(microseconds(300));
    const nanoseconds own = Turn();
    OnNewThread([own] { EXPECT_EQ(Turn(), own); });
    if (KernelHasTurnsOfOnesOwn()) {
      EXPECT_EQ(own, microseconds(300));
    }
  });
}

TEST(ShortSlice, PriorityAndPolicyStayAndOtherThreadsToo) {
  const nanoseconds before = Turn();
  OnNewThread([] {
    const auto thread = static_cast<id_t>(syscall(SYS_gettid));
    const int nice = std::min(19, getpriority(PRIO_PROCESS, thread) + 1);
    ASSERT_EQ(setpriority(PRIO_PROCESS, thread, nice), 0);
    const int policy = sched_getscheduler(0);
    RequestShortSlice(microseconds(200));
    EXPECT_EQ(getpriority(PRIO_PROCESS, thread), nice);
    EXPECT_EQ(sched_getscheduler(0), policy);
  });
  EXPECT_EQ(Turn(), before);
}

}  // namespace
}  // namespace attend
