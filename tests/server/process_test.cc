// How a process ends that lacks threads or memory. Each test ends a child.
#include "server/process.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace attend::server {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

// As a thread does whose exception nobody catches.
template <typename Exception>
void Throw(Phase phase, const Exception& exception) {
  ExplainTermination(phase);
  std::thread([&exception] { throw exception; }).join();
}

std::system_error NoThread() { return {EAGAIN, std::generic_category()}; }

// Makes the system give no further thread. Root is above that limit, so the child becomes somebody else.
void TakeThreads() {
  const rlimit none{.rlim_cur = 0, .rlim_max = 0};
  constexpr uid_t kNobody = 65534;
  if (geteuid() == 0 && setresuid(kNobody, kNobody, kNobody) != 0) std::abort();
  if (setrlimit(RLIMIT_NPROC, &none) != 0) std::abort();
}

class ProcessDeathTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(ProcessDeathTest, AStartThatGetsNoThreadSaysSo) {
  EXPECT_EXIT(Throw(Phase::kStart, NoThread()), ExitedWithCode(1),
              "^attend-server: cannot start a thread: .*unavailable; raise the limit of processes .*--threads");
}

TEST_F(ProcessDeathTest, AStartThatFailsOtherwiseSaysWhy) {
  EXPECT_EXIT(Throw(Phase::kStart, std::bad_alloc()), ExitedWithCode(1), "attend-server: out of memory");
  EXPECT_EXIT(Throw(Phase::kStart, std::runtime_error("epoll: none left")), ExitedWithCode(1),
              "attend-server: ended by an error: epoll: none left");
  EXPECT_EXIT(Throw(Phase::kStart, 7), ExitedWithCode(1), "attend-server: ended by an error of its own");
}

TEST_F(ProcessDeathTest, AThreadThatNobodyJoinedIsExplainedToo) {
  const auto forget = [] {
    ExplainTermination(Phase::kStart);
    const std::thread forgotten([] { pause(); });
  };
  EXPECT_EXIT(forget(), ExitedWithCode(1), "attend-server: ended by an error of its own");
}

TEST_F(ProcessDeathTest, WhileItServesACoreIsKept) {
  EXPECT_EXIT(Throw(Phase::kServing, std::bad_alloc()), KilledBySignal(SIGABRT), "attend-server: out of memory");
}

TEST_F(ProcessDeathTest, ADrainNeedsNoThread) {
  const auto drain = [] {
    const ShutdownSignals signals;
    TakeThreads();
    bool drained = false;
    signals.RunWhileListening([&drained] { drained = true; }, [] {});
    std::_Exit(drained ? 0 : 1);
  };
  EXPECT_EXIT(drain(), ExitedWithCode(0), "");
}

TEST_F(ProcessDeathTest, AStartWithoutDescriptorsIsRefused) {
  ASSERT_TRUE(CheckFreeDescriptors().ok()) << CheckFreeDescriptors();
  const auto check = [] {
    const rlimit few{.rlim_cur = 20, .rlim_max = 20};
    setrlimit(RLIMIT_NOFILE, &few);
    const absl::Status checked = CheckFreeDescriptors();
    std::_Exit(absl::IsResourceExhausted(checked) && CheckFreeDescriptors() == checked ? 0 : 1);
  };
  EXPECT_EXIT(check(), ExitedWithCode(0), "");
}

}  // namespace
}  // namespace attend::server
