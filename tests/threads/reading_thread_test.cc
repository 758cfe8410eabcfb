// When what a thread has read is published: it sleeps in gRPC, is back from there, or has worked there for a while.
#include "server/rpc/reading_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "core/base/mutex.h"

namespace attend::testing {
namespace {

using server::ReadingThread;
using std::chrono::milliseconds;

// Waits until `condition`; false when it is not so after a minute.
bool Becomes(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

// A thread that takes one step of `work` after another, each when the test says so.
class Stepper {
 public:
  explicit Stepper(std::function<void(ReadingThread&, Stepper&)> work) {
    thread_.Start([this, work = std::move(work)] { work(thread_, *this); });
  }
  ~Stepper() {
    works_.store(false);
    GoOn();
    thread_.Join();
  }

  void Sleep() {
    const MutexLock lock(mu_);
    while (!may_go_on_ && works_.load()) changed_.Wait(mu_);
    may_go_on_ = false;
  }
  void Work() {
    while (works_.load()) {
    }
  }
  void GoOn() {
    const MutexLock lock(mu_);
    may_go_on_ = true;
    changed_.Signal();
  }

  ReadingThread& thread() { return thread_; }

 private:
  std::atomic<bool> works_{true};
  Mutex mu_;
  CondVar changed_;
  bool may_go_on_ ABSL_GUARDED_BY(mu_) = false;
  ReadingThread thread_;
};

TEST(ReadingThreadTest, WhoSleepsInAQuestionHasPublished) {
  Stepper stepper([](ReadingThread& thread, Stepper& steps) {
    thread.BeginQuestion();
    steps.Sleep();
  });
  const ReadingThread& thread = stepper.thread();
  // It may sleep for a moment before, too.
  ReadingThread::Moment then;
  ASSERT_TRUE(Becomes([&] {
    then = thread.Now();
    return then.sleeps && thread.HasPublished(then);
  }));
  EXPECT_FALSE(thread.IsKeptSince(then));
  EXPECT_EQ(thread.questions(), 1U);
}

TEST(ReadingThreadTest, WhoSleepsWhileAnEventWaitsToBeHandledHasNot) {
  Stepper stepper([](ReadingThread& thread, Stepper& steps) {
    thread.BeginQuestion();
    thread.BeginHandling();
    steps.Sleep();
    thread.BeginQuestion();
    steps.Sleep();
  });
  const ReadingThread& thread = stepper.thread();
  ASSERT_TRUE(Becomes([&] { return thread.questions() == 1; }));
  std::this_thread::sleep_for(milliseconds(20));  // It sleeps by now, most likely.
  const ReadingThread::Moment then = thread.Now();
  EXPECT_FALSE(thread.HasPublished(then));
  EXPECT_FALSE(thread.HasHandled(then));
  stepper.GoOn();
  EXPECT_TRUE(Becomes([&] { return thread.HasPublished(then); }));
  EXPECT_TRUE(thread.HasHandled(then));
  EXPECT_EQ(thread.questions(), 2U);
}

TEST(ReadingThreadTest, WhoWorksHasPublishedAfterAWhileAndIsKept) {
  Stepper stepper([](ReadingThread& thread, Stepper& steps) {
    thread.BeginQuestion();
    steps.Work();
  });
  const ReadingThread& thread = stepper.thread();
  ASSERT_TRUE(Becomes([&] { return thread.questions() == 1 && thread.UsedTime() > milliseconds(1); }));
  const ReadingThread::Moment then = thread.Now();
  EXPECT_FALSE(then.sleeps);
  ASSERT_TRUE(Becomes([&] { return thread.HasPublished(then); }));
  EXPECT_GE(thread.UsedTime() - then.used, milliseconds(5));
  EXPECT_TRUE(thread.IsKeptSince(then));
}

TEST(ReadingThreadTest, WhoWorksAndIsBackHasPublishedAndIsNotKept) {
  ReadingThread thread;
  std::atomic<int> step{0};
  thread.Start([&] {
    thread.BeginQuestion();
    step.store(1);
    while (step.load() == 1) {
    }
    thread.End();
    step.store(3);
    while (step.load() == 3) {
    }
  });
  while (step.load() != 1) {
  }
  const ReadingThread::Moment then = thread.Now();
  step.store(2);
  while (step.load() != 3) {
  }
  EXPECT_TRUE(thread.HasPublished(then));
  const ReadingThread::Moment rests = thread.Now();
  EXPECT_TRUE(thread.HasPublished(rests));
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(thread.IsKeptSince(then));
  EXPECT_FALSE(thread.IsKeptSince(rests));
  step.store(4);
  thread.Join();
  EXPECT_TRUE(Becomes([&] { return thread.UsedTime() == std::chrono::nanoseconds(0); })) << "it does not run any more";
}

}  // namespace
}  // namespace attend::testing
