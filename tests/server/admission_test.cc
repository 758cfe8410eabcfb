// Who is let in: the queue's bound, deadlines that cannot be met, and the time to come back.
#include "server/rpc/admission.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/base/error.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

// A thousand operations a millisecond, and memory that costs nothing.
constexpr ComputeRates kRates{.flops_per_ms = 1000, .bytes_per_ms = 1e300};

constexpr system_clock::time_point kNever = system_clock::time_point::max();

std::string Reason(const absl::Status& status) { return GetErrorDetails(status).reason; }

using RunningTask = Admission::RunningTask;

void Computes(RunningTask& task) { EXPECT_TRUE(task.Begin({}).ok()); }

void Sleeps(RunningTask& task) {
  EXPECT_TRUE(task.Begin({}).ok());
  absl::SleepFor(absl::Milliseconds(20));
}

int RetryMs(const absl::Status& status) {
  for (const auto& [key, value] : GetErrorDetails(status).metadata) {
    if (key == kRetryDelayKey) return std::stoi(value);
  }
  return -1;
}

// An executor of one thread, which a task can be made to hold.
class AdmissionTest : public ::testing::TestWithParam<int> {
 public:
  ~AdmissionTest() override { Open(); }

 protected:
  void Open() {
    if (!gate_.HasBeenNotified()) gate_.Notify();
  }
  void WaitUntilIdle() {
    while (admission_->outstanding() > 0) absl::SleepFor(absl::Milliseconds(1));
  }
  void Make(int max_queued) {
    executor_ = std::make_unique<Executor>(Executor::Options{.num_threads = 1, .max_queued_tasks = max_queued});
    admission_ = std::make_unique<Admission>(*executor_, max_queued, kRates);
  }
  // Asks again where it stood still for so long, between two lines, that the deadline had passed.
  absl::Status Ask(int ms) {
    absl::Status answer;
    for (int tries = 0; tries < 10; ++tries) {
      answer = admission_->Check(system_clock::now() + milliseconds(ms));
      if (!absl::IsDeadlineExceeded(answer)) break;
    }
    return answer;
  }
  // Submits a task that holds the thread until the gate opens, and waits until it does.
  void HoldThread() {
    absl::Notification started;
    ASSERT_TRUE(admission_
                    ->Submit({},
                             [this, &started](RunningTask& task) {
                               EXPECT_TRUE(task.Begin({}).ok());
                               started.Notify();
                               gate_.WaitForNotification();
                             })
                    .ok());
    started.WaitForNotification();
  }

  absl::Notification gate_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<Executor> executor_;  // Destroyed first: its tasks report to the admission.
};

TEST_P(AdmissionTest, AsManyAsTheQueueHoldsAndNotOneMore) {
  Make(GetParam());
  HoldThread();
  for (int i = 0; i < GetParam(); ++i) {
    EXPECT_TRUE(admission_->Check(kNever).ok()) << i;
    EXPECT_TRUE(admission_->Submit({}, Computes).ok()) << i;
  }
  const absl::Status refused = admission_->Check(kNever);
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_EQ(Reason(refused), "QUEUE_FULL");
  EXPECT_GT(RetryMs(refused), 0);
  // One that was let in before the queue filled.
  bool run = false;
  const absl::Status late = admission_->Submit({}, [&run](RunningTask&) { run = true; });
  EXPECT_EQ(Reason(late), "QUEUE_FULL");
  EXPECT_GT(RetryMs(late), 0);
  Open();
  WaitUntilIdle();
  EXPECT_FALSE(run);
  EXPECT_TRUE(admission_->Check(kNever).ok());
}

INSTANTIATE_TEST_SUITE_P(QueueSizes, AdmissionTest, ::testing::Values(0, 1, 5));

system_clock::time_point In(int ms) { return system_clock::now() + milliseconds(ms); }

TEST_F(AdmissionTest, DeadlinesBeyondTheWaitAreLetInAndOthersRefusedBeforeTheyAreRead) {
  Make(100);
  for (int i = 0; i < 10; ++i) {  // Teaches it that a task takes at least 10 ms.
    ASSERT_TRUE(admission_->Submit({}, Sleeps).ok());
  }
  WaitUntilIdle();
  EXPECT_TRUE(Ask(20).ok()) << "refused by an idle server";
  HoldThread();
  EXPECT_TRUE(Ask(20).ok()) << "nobody waits, and of who runs nothing is known";
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(admission_->Submit({}, Computes).ok());
  const absl::Status refused = Ask(20);  // Five wait, so at least 50 ms.
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_EQ(Reason(refused), "DEADLINE_UNREACHABLE");
  EXPECT_GE(RetryMs(refused), 50);
  EXPECT_TRUE(admission_->Check(kNever).ok());
  EXPECT_TRUE(admission_->Check(In(3600'000)).ok());
  Open();
}

Admission::Request Asking(int ms, double flops) { return {.deadline = In(ms), .cost = WorkCost{.flops = flops}}; }

TEST_F(AdmissionTest, TheQueueIsAsLongAsTheWorkInIt) {
  Make(100);
  HoldThread();
  const auto computes = [](RunningTask&) {};
  ASSERT_TRUE(admission_->Submit(Asking(3600'000, 1e6), computes).ok());  // A second.
  EXPECT_NEAR(admission_->WaitMs(), 1000, 1);
  EXPECT_NEAR(RetryMs(Ask(1000)), 1000, 1);
  // So long that a machine which stands still for seconds changes no verdict.
  ASSERT_TRUE(admission_->Submit(Asking(3600'000, 4.9e7), computes).ok());
  EXPECT_NEAR(admission_->WaitMs(), 50'000, 1);
  EXPECT_EQ(Reason(admission_->Check(In(50'000))), "DEADLINE_UNREACHABLE");
  EXPECT_TRUE(admission_->Check(In(70'000)).ok());  // A fifth is kept back.
  EXPECT_EQ(Reason(admission_->Submit(Asking(70'000, 2e7), computes)), "DEADLINE_UNREACHABLE") << "with its own time";
  const absl::Status refused = admission_->Check(Asking(70'000, 2e7));
  EXPECT_EQ(Reason(refused), "DEADLINE_UNREACHABLE");
  EXPECT_EQ(RetryMs(refused), 5000) << "nobody is told to wait for longer";
  EXPECT_TRUE(admission_->Check(Asking(70'000, 1e6)).ok());
  Open();
  WaitUntilIdle();
  EXPECT_EQ(admission_->WaitMs(), 0);
  EXPECT_TRUE(admission_->Check(Asking(10'000, 1e7)).ok());
}

TEST_F(AdmissionTest, OnlyWhatAnIdleServerCouldNotDoEitherHasItsDeadlineExceeded) {
  Make(100);
  EXPECT_TRUE(admission_->Check(Asking(100'000, 3e8)).ok()) << "three times too long may be the model's mistake";
  const absl::Status refused = admission_->Check(Asking(100'000, 5e8));
  EXPECT_TRUE(absl::IsDeadlineExceeded(refused)) << refused;
  EXPECT_EQ(Reason(refused), "DEADLINE_TOO_SHORT");
  EXPECT_EQ(RetryMs(refused), -1) << "coming again does not help";
  EXPECT_EQ(Reason(admission_->Submit(Asking(100'000, 5e8), Computes)), "DEADLINE_TOO_SHORT");
  EXPECT_TRUE(admission_->Check({.deadline = kNever, .cost = WorkCost{.flops = 1e300}}).ok());
}

TEST_F(AdmissionTest, WhatTurnsOutTooLongWhenItIsDecodedNeverStarts) {
  Make(100);
  absl::Status alone, doomed, hopeless;
  const auto begin = [](absl::Status& status, double flops) {
    return [&status, flops](RunningTask& task) {
      status = task.Begin({.flops = flops});
      task.Stopped();  // Or the model would learn that it took no time.
    };
  };
  ASSERT_TRUE(admission_->Submit({.deadline = In(10'000)}, begin(alone, 2e7)).ok());  // 20 s of 10.
  WaitUntilIdle();
  EXPECT_TRUE(alone.ok()) << "nothing is lost by trying while nobody waits: " << alone;
  HoldThread();
  ASSERT_TRUE(admission_->Submit({.deadline = In(10'000)}, begin(doomed, 2e7)).ok());
  ASSERT_TRUE(admission_->Submit({.deadline = In(10'000)}, begin(hopeless, 1e8)).ok());
  Open();
  WaitUntilIdle();
  EXPECT_EQ(Reason(doomed), "DEADLINE_UNREACHABLE");
  EXPECT_EQ(Reason(hopeless), "DEADLINE_TOO_SHORT");
  const Admission::Counts counts = admission_->counts();
  EXPECT_EQ(counts.queued, 4);
  EXPECT_EQ(counts.started, 2);
  EXPECT_EQ(counts.finished, 1);
  EXPECT_EQ(counts.stopped, 1);
  EXPECT_EQ(counts.dropped, 2);
  EXPECT_EQ(counts.refused, 2);
}

TEST_F(AdmissionTest, TasksThatDoNotBeginOrAreStoppedAreCountedAsSuch) {
  Make(100);
  ASSERT_TRUE(admission_->Submit({}, [](RunningTask&) {}).ok());
  ASSERT_TRUE(admission_
                  ->Submit({},
                           [](RunningTask& task) {
                             EXPECT_TRUE(task.Begin({}).ok());
                             task.Stopped();
                           })
                  .ok());
  WaitUntilIdle();
  EXPECT_EQ(admission_->counts().dropped, 1);
  EXPECT_EQ(admission_->counts().started, 1);
  EXPECT_EQ(admission_->counts().stopped, 1);
  EXPECT_EQ(admission_->counts().finished, 0);
}

TEST_F(AdmissionTest, LearnsFromWhatTasksTake) {
  Make(100);
  const auto sleeps = [](RunningTask& task) {
    EXPECT_TRUE(task.Begin({.flops = 1000}).ok());  // A millisecond, if the model was right.
    absl::SleepFor(absl::Milliseconds(20));
  };
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(admission_->Submit({}, sleeps).ok());
  WaitUntilIdle();
  HoldThread();
  ASSERT_TRUE(admission_->Submit({.cost = WorkCost{.flops = 1e5}}, Computes).ok());
  EXPECT_GE(admission_->WaitMs(), 200) << "was 100 by the model it began with";
  Open();
}

TEST(AdmissionPrediction, IsWhatThreadsTogetherTakeWhereTheyHelpEachOther) {
  Executor executor({.num_threads = 4, .max_queued_tasks = 8});
  Admission admission(executor, 8, {.flops_per_ms = 1e6, .bytes_per_ms = 1e6});
  EXPECT_DOUBLE_EQ(admission.PredictedMs({.flops = 2e6, .bytes = 1e6}), 3);
  EXPECT_DOUBLE_EQ(admission.PredictedMs({.flops = 7e6, .bytes = 1e6}), 2);
}

}  // namespace
}  // namespace attend::server
