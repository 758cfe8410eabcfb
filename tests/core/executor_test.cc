// Guards the executor: what it admits, that every task runs once, and that ParallelFor covers every index exactly once
// whoever calls it. Runs under ThreadSanitizer too.
#include "core/runtime/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "core/base/mutex.h"

namespace attend {
namespace {

// A gate for threads, from the primitives that ThreadSanitizer understands.
class Gate {
 public:
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    opened_.SignalAll();
  }
  void Wait() {
    MutexLock lock(mu_);
    while (!open_) opened_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar opened_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

TEST(ExecutorQueue, RefusesWhatGoesBeyondItsBoundAndRunsTheRest) {
  Gate started, finish;
  std::atomic<int> ran{0};
  {
    Executor executor({.num_threads = 1, .max_queued_tasks = 2});
    ASSERT_TRUE(executor.Submit([&] {
      started.Open();
      finish.Wait();
      ++ran;
    }));
    started.Wait();
    EXPECT_EQ(executor.running_tasks(), 1);
    EXPECT_TRUE(executor.Submit([&] { ++ran; }));
    EXPECT_TRUE(executor.Submit([&] { ++ran; }));
    EXPECT_EQ(executor.queued_tasks(), 2);
    EXPECT_FALSE(executor.Submit([&] { ran += 1000; }));
    EXPECT_EQ(executor.queued_tasks(), 2);
    finish.Open();
  }
  EXPECT_EQ(ran, 3);
}

TEST(ExecutorQueue, WithoutAQueueATaskIsAdmittedWhileAWorkerIsFree) {
  Gate finish;
  Executor executor({.num_threads = 2, .max_queued_tasks = 0});
  EXPECT_TRUE(executor.Submit([&] { finish.Wait(); }));
  EXPECT_TRUE(executor.Submit([&] { finish.Wait(); }));
  EXPECT_FALSE(executor.Submit([] {}));
  finish.Open();
}

TEST(ExecutorQueue, ARefusedTaskIsDestroyedWithoutRunning) {
  Gate finish;
  Executor executor({.num_threads = 1, .max_queued_tasks = 0});
  ASSERT_TRUE(executor.Submit([&] { finish.Wait(); }));
  auto owned = std::make_shared<int>(0);
  EXPECT_FALSE(executor.Submit([owned] { ++*owned; }));
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_EQ(*owned, 0);
  finish.Open();
}

TEST(ExecutorQueue, TasksRunInTheOrderTheyCame) {
  std::vector<int> order;
  {
    Executor executor({.num_threads = 1, .max_queued_tasks = 100});
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(executor.Submit([&order, i] { order.push_back(i); }));
  }
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(ExecutorQueue, ATaskThatRunsIsNoLongerQueued) {
  Gate all_queued;
  std::vector<int> queued;
  {
    Executor executor({.num_threads = 1, .max_queued_tasks = 3});
    ASSERT_TRUE(executor.Submit([&] { all_queued.Wait(); }));
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(executor.Submit([&] { queued.push_back(executor.queued_tasks()); }));
    }
    all_queued.Open();
  }
  EXPECT_EQ(queued, (std::vector<int>{1, 0}));
}

TEST(ExecutorQueue, DestructorRunsTasksAdmittedByTasks) {
  std::atomic<bool> ran{false};
  {
    Executor executor({.num_threads = 1, .max_queued_tasks = 1});
    ASSERT_TRUE(executor.Submit([&] { EXPECT_TRUE(executor.Submit([&] { ran = true; })); }));
  }
  EXPECT_TRUE(ran);
}

// What a task owns may itself use the executor when it goes, and goes while the task still counts as running.
TEST(ExecutorQueue, WhatATaskOwnsIsDestroyedBeforeTheTaskCountsAsFinished) {
  int running = 0;
  {
    Executor executor({.num_threads = 1});
    const auto last = [&](int*) { running = executor.running_tasks(); };
    ASSERT_TRUE(executor.Submit([owned = std::unique_ptr<int, decltype(last)>(&running, last)] {}));
  }
  EXPECT_EQ(running, 1);
}

void ExpectEachIndexOnce(Executor& executor, std::int64_t count) {
  std::vector<int> visits(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));  // Plain: a double visit races.
  executor.ParallelFor(count, [&](std::int64_t i) { ++visits[static_cast<std::size_t>(i)]; });
  EXPECT_THAT(visits, ::testing::Each(1)) << count;
}

TEST(ExecutorParallelFor, CoversEachIndexExactlyOnce) {
  for (const int threads : {1, 2, 5}) {
    Executor executor({.num_threads = threads});
    for (const std::int64_t count : {-1, 0, 1, 2, 3, 7, 64, 5000}) ExpectEachIndexOnce(executor, count);
  }
}

TEST(ExecutorParallelFor, OneIterationRunsOnTheCaller) {
  Executor executor({.num_threads = 2});
  std::thread::id id;
  executor.ParallelFor(1, [&](std::int64_t) { id = std::this_thread::get_id(); });
  EXPECT_EQ(id, std::this_thread::get_id());
}

// Each iteration waits for all the others, so this ends only when three workers help the caller.
TEST(ExecutorParallelFor, IdleWorkersHelp) {
  Executor executor({.num_threads = 3});
  std::atomic<int> arrived{0};
  Gate all;
  executor.ParallelFor(4, [&](std::int64_t) {
    if (++arrived == 4) all.Open();
    all.Wait();
  });
  EXPECT_EQ(arrived, 4);
}

// A worker that has become idle only after the loop began helps too.
TEST(ExecutorParallelFor, WorkersThatFinishTheirTaskHelp) {
  Executor executor({.num_threads = 1});
  Gate started, finish, helped;
  ASSERT_TRUE(executor.Submit([&] {
    started.Open();
    finish.Wait();
  }));
  started.Wait();
  const std::thread::id caller = std::this_thread::get_id();
  executor.ParallelFor(2, [&](std::int64_t) {
    if (std::this_thread::get_id() != caller) return helped.Open();
    finish.Open();
    helped.Wait();
  });
}

TEST(ExecutorParallelFor, WithinAnIterationStaysOnItsThread) {
  Executor executor({.num_threads = 3});
  std::atomic<int> covered{0};
  executor.ParallelFor(2, [&](std::int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    executor.ParallelFor(16, [&](std::int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // Time for others to interfere, if they could.
      ++covered;
    });
  });
  EXPECT_EQ(covered, 2 * 16);
}

TEST(ExecutorParallelFor, SpreadsAgainAfterALoopHasEnded) {
  Executor executor({.num_threads = 1});
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::atomic<int> arrived{0};
    Gate both;
    executor.ParallelFor(2, [&](std::int64_t) {
      if (++arrived == 2) both.Open();
      both.Wait();
    });
  }
}

// A helper leaves for a queued task between two iterations: the loop cannot end before the task has run.
TEST(ExecutorParallelFor, HelpersPreferTasks) {
  Executor executor({.num_threads = 1});
  Gate task_ran;
  std::atomic<bool> submitted{false};
  const std::thread::id caller = std::this_thread::get_id();
  executor.ParallelFor(1000, [&](std::int64_t) {
    if (std::this_thread::get_id() != caller && !submitted.exchange(true)) {
      EXPECT_TRUE(executor.Submit([&] { task_ran.Open(); }));
    } else {
      // The helper comes here only after the task: with a task waiting, the worker takes it first.
      task_ran.Wait();
    }
  });
  EXPECT_TRUE(submitted);
}

TEST(ExecutorParallelFor, ConcurrentLoopsFromTasksAndOtherThreadsEachCoverTheirOwn) {
  constexpr int kTasks = 40;
  std::atomic<int> finished{0};
  {
    Executor executor({.num_threads = 3, .max_queued_tasks = kTasks});
    const auto work = [&executor, &finished] {
      for (const std::int64_t count : {1, 2, 50}) ExpectEachIndexOnce(executor, count);
      ++finished;
    };
    for (int i = 0; i < kTasks; ++i) ASSERT_TRUE(executor.Submit(work));
    std::vector<std::thread> others;
    for (int i = 0; i < 2; ++i) others.emplace_back(work);
    for (std::thread& other : others) other.join();
  }
  EXPECT_EQ(finished, kTasks + 2);
}

TEST(ExecutorParallelFor, ResultsWrittenByHelpersAreVisibleToTheCaller) {
  Executor executor({.num_threads = 3});
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::int64_t values[64] = {};
    executor.ParallelFor(64, [&](std::int64_t i) { values[i] = i; });
    ASSERT_EQ(std::accumulate(std::begin(values), std::end(values), std::int64_t{0}), 63 * 64 / 2);
  }
}

}  // namespace
}  // namespace attend
