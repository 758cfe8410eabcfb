// Who is let in: the queue's bound, deadlines that cannot be met, and the time to come back.
#include "server/rpc/admission.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/base/error.h"
#include "server/codec/status.h"

namespace attend::server {
namespace {

using std::chrono::system_clock;

constexpr system_clock::time_point kNever = system_clock::time_point::max();

std::string Reason(const absl::Status& status) { return GetErrorDetails(status).reason; }

int RetryMs(const absl::Status& status) {
  for (const auto& [key, value] : GetErrorDetails(status).metadata) {
    if (key == kRetryDelayKey) return std::stoi(value);
  }
  return -1;
}

// An executor of one thread, which a task can be made to hold.
class AdmissionTest : public ::testing::TestWithParam<int> {
 protected:
  ~AdmissionTest() override { Open(); }
  void Open() {
    if (!gate_.HasBeenNotified()) gate_.Notify();
  }
  void WaitUntilIdle() {
    while (admission_->outstanding() > 0) absl::SleepFor(absl::Milliseconds(1));
  }
  void Make(int max_queued) {
    executor_ = std::make_unique<Executor>(Executor::Options{.num_threads = 1, .max_queued_tasks = max_queued});
    admission_ = std::make_unique<Admission>(*executor_, max_queued);
  }
  // Submits a task that holds the thread until the gate opens, and waits until it does.
  void HoldThread() {
    absl::Notification started;
    ASSERT_TRUE(admission_
                    ->Submit([this, &started] {
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
    EXPECT_TRUE(admission_->Submit([] {}).ok()) << i;
  }
  const absl::Status refused = admission_->Check(kNever);
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_EQ(Reason(refused), "QUEUE_FULL");
  EXPECT_GT(RetryMs(refused), 0);
  // One that was let in before the queue filled.
  bool run = false;
  const absl::Status late = admission_->Submit([&run] { run = true; });
  EXPECT_EQ(Reason(late), "QUEUE_FULL");
  EXPECT_GT(RetryMs(late), 0);
  Open();
  WaitUntilIdle();
  EXPECT_FALSE(run);
  EXPECT_TRUE(admission_->Check(kNever).ok());
}

INSTANTIATE_TEST_SUITE_P(QueueSizes, AdmissionTest, ::testing::Values(0, 1, 5));

TEST_F(AdmissionTest, DeadlinesBeyondTheWaitAreLetInAndOthersRefusedBeforeTheyAreRead) {
  Make(100);
  for (int i = 0; i < 10; ++i) {  // Teaches it that a task takes at least 10 ms.
    ASSERT_TRUE(admission_->Submit([] { absl::SleepFor(absl::Milliseconds(20)); }).ok());
  }
  WaitUntilIdle();
  const auto soon = system_clock::now() + std::chrono::milliseconds(20);
  EXPECT_TRUE(admission_->Check(soon).ok()) << "refused by an idle server";
  HoldThread();
  EXPECT_TRUE(admission_->Check(soon).ok()) << "nobody waits: the wait is unknown";
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(admission_->Submit([] {}).ok());
  const absl::Status refused = admission_->Check(soon);  // Five wait, so at least 50 ms.
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_EQ(Reason(refused), "DEADLINE_UNREACHABLE");
  EXPECT_GE(RetryMs(refused), 50);
  EXPECT_TRUE(admission_->Check(kNever).ok());
  EXPECT_TRUE(admission_->Check(system_clock::now() + std::chrono::hours(1)).ok());
  Open();
}

}  // namespace
}  // namespace attend::server
