// Admission between tenants: whose turn it is, who gives way, and who interrupts whom. Under ThreadSanitizer too.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/base/error.h"
#include "core/runtime/cpu.h"
#include "server/rpc/admission.h"

namespace attend::server {
namespace {

using RunningTask = Admission::RunningTask;
using std::chrono::milliseconds;
using std::chrono::system_clock;

// A thousand operations a millisecond.
constexpr ComputeRates kRates{.flops_per_ms = 1000, .bytes_per_ms = 1e300};

std::string Reason(const absl::Status& status) { return GetErrorDetails(status).reason; }

class AdmissionTenantsTest : public ::testing::Test {
 public:
  ~AdmissionTenantsTest() override { Open(); }

 protected:
  static AccountRef MakeAccount(const std::string& tenant) {
    return std::make_shared<Account>("caller of " + tenant, std::make_shared<Tenant>(tenant), false);
  }
  void Open() {
    if (!gate_.HasBeenNotified()) gate_.Notify();
  }
  void WaitUntilIdle() {
    while (admission_->outstanding() > 0) absl::SleepFor(absl::Milliseconds(1));
  }
  void Make(int max_queued, int threads = 1) {
    executor_ =
        std::make_unique<Executor>(Executor::Options{.num_threads = threads, .max_queued_tasks = max_queued + threads});
    admission_ = std::make_unique<Admission>(*executor_, max_queued, kRates);
  }
  // A task of `a_` that computes for ten seconds, by the model, until the gate opens; between tiles others may run.
  void HoldThread(bool with_tiles) {
    absl::Notification started;
    const Admission::Request request{.cost = WorkCost{.flops = 1e7}, .account = a_};
    ASSERT_TRUE(admission_
                    ->Submit(request,
                             [this, &started, with_tiles](RunningTask& task) {
                               EXPECT_TRUE(task.Begin({.flops = 1e7}).ok());
                               const Clock::time_point start = Clock::now();
                               thread_ = std::this_thread::get_id();
                               // Others are due for a while: what they then run is short beside that, also where a
                               // busy machine takes the thread away from them for some milliseconds.
                               Work(milliseconds(100));
                               started.Notify();
                               while (!gate_.HasBeenNotified()) {
                                 if (with_tiles) task.Look();
                                 absl::SleepFor(absl::Microseconds(200));
                               }
                               interrupted_ = task.interrupted();
                               held_ = Clock::now() - start;
                               task.Stopped();
                             })
                    .ok());
    started.WaitForNotification();
  }
  static Admission::Request Asking(const AccountRef& account, double flops) {
    return {.cost = WorkCost{.flops = flops}, .account = account};
  }
  Admission::Task Note(const std::string& what) {
    return [this, what](RunningTask& task) {
      const absl::Status begun = task.Begin({});
      const MutexLock lock(mu_);
      events_ += begun.ok() ? what : "(" + what + " " + Reason(begun) + ")";
    };
  }
  std::string events() {
    const MutexLock lock(mu_);
    return events_;
  }
  // Works for so long: what a tenant is charged is processor time.
  static void Work(std::chrono::nanoseconds time) {
    const std::chrono::nanoseconds start = ThreadCpuTime();
    while (ThreadCpuTime() - start < time) {
    }
  }
  template <typename Condition>
  static bool WaitFor(Condition condition) {
    for (int i = 0; i < 30'000 && !condition(); ++i) absl::SleepFor(absl::Milliseconds(1));
    return condition();
  }
  bool WaitForEvents(const std::string& wanted) {
    return WaitFor([&] { return events() == wanted; });
  }

  const AccountRef a_ = MakeAccount("a");
  const AccountRef b_ = MakeAccount("b");
  const AccountRef c_ = MakeAccount("c");
  absl::Notification gate_;
  std::thread::id thread_;
  Clock::duration interrupted_{};
  Clock::duration held_{};
  Mutex mu_;
  std::string events_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<Executor> executor_;  // Destroyed first: its tasks report to the admission.
};

TEST_F(AdmissionTenantsTest, ASecondTenantIsServedBeforeTheFirstOnesQueue) {
  Make(100);
  HoldThread(/*with_tiles=*/false);
  const auto works = [this](RunningTask& task) {
    Work(milliseconds(60));
    Note("a")(task);
  };
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(admission_->Submit(Asking(a_, 1e6), works).ok());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(admission_->Submit(Asking(b_, 1e6), Note("b")).ok());
  Open();
  WaitUntilIdle();
  // Where other programs had a's core meanwhile, it has not used what the clock says, and gets 50 ms of that.
  EXPECT_TRUE(events() == "bbaaaa" || events() == "abbaaa") << events() << ": a has had the thread all the time";
}

// Whoever knocks at a full queue uses the polling threads, and has that much less of the others.
TEST_F(AdmissionTenantsTest, RefusedRequestsAreTheirTenantsTime) {
  Make(4);
  HoldThread(/*with_tiles=*/false);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(admission_->Submit(Asking(c_, 1e6), Note("c")).ok());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(admission_->Submit(Asking(b_, 1e6), Note("b")).ok());
  for (int i = 0; i < 100'000; ++i) EXPECT_EQ(Reason(admission_->Submit(Asking(c_, 1e6), Note("x"))), "QUEUE_FULL");
  const std::chrono::duration<double> charged = c_->tenant->TakeUnqueued();
  EXPECT_GT(charged.count(), 1) << "seconds";
  EXPECT_EQ(c_->tenant->compute_time().count(), 0) << "no quota of computing is used up";
  EXPECT_EQ(b_->tenant->TakeUnqueued().count(), 0);
}

// What cannot be decoded is found out at its last byte, by a compute thread.
TEST_F(AdmissionTenantsTest, ATaskThatDoesNotBeginIsItsTenantsComputeTime) {
  Make(4);
  b_->tenant->SetLimits({.max_compute_threads = 0.001});
  const auto decode_in_vain = [](RunningTask&) { absl::SleepFor(absl::Milliseconds(20)); };
  ASSERT_TRUE(admission_->Submit(Asking(b_, 1e6), decode_in_vain).ok());
  WaitUntilIdle();
  EXPECT_GE(b_->tenant->compute_time(), milliseconds(20));
  EXPECT_GT(b_->tenant->ComputeDelay(Clock::now()), std::chrono::seconds(10)) << "19 ms at a thousandth of a thread";
  EXPECT_EQ(b_->tenant->requests_computed(), 0);
  EXPECT_EQ(admission_->counts().dropped, 1);
}

TEST_F(AdmissionTenantsTest, OneCallerMayFillTheQueueAndGivesWayToOthersUntilTheyHaveAsMuch) {
  Make(8);
  HoldThread(/*with_tiles=*/false);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(admission_->Submit(Asking(a_, 1), Note(std::to_string(i))).ok()) << i;
  EXPECT_EQ(Reason(admission_->Check(Asking(a_, 1))), "QUEUE_FULL");
  EXPECT_EQ(Reason(admission_->Check(Admission::Request())), "QUEUE_FULL")
      << "a caller of whom nothing is known has no share";
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(admission_->Check(Asking(b_, 1)).ok()) << i;
    EXPECT_TRUE(admission_->Submit(Asking(b_, 1), Note("b")).ok()) << i;
  }
  EXPECT_EQ(events(), "(7 QUEUE_FULL)(6 QUEUE_FULL)(5 QUEUE_FULL)(4 QUEUE_FULL)") << "the newest hear of it at once";
  EXPECT_EQ(Reason(admission_->Submit(Asking(b_, 1), Note("x"))), "QUEUE_FULL") << "b has as many as a";
  EXPECT_EQ(Reason(admission_->Submit(Asking(a_, 1), Note("x"))), "QUEUE_FULL");
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(admission_->Submit(Asking(c_, 1), Note("c")).ok()) << i;
  EXPECT_EQ(Reason(admission_->Submit(Asking(c_, 1), Note("x"))), "QUEUE_FULL") << "nobody has one more than c would";
  EXPECT_EQ(admission_->outstanding(), 9);
  Open();
  WaitUntilIdle();
  std::string ran = events().substr(events().rfind(')') + 1);
  std::sort(ran.begin(), ran.end());
  EXPECT_EQ(ran.size(), 8);
  EXPECT_EQ(std::count(ran.begin(), ran.end(), 'c'), 2) << ran;
  const Admission::Counts counts = admission_->counts();
  EXPECT_EQ(counts.queued, counts.finished + counts.stopped + counts.dropped);
  EXPECT_EQ(counts.dropped, 6);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(admission_->Submit(Asking(a_, 1), Note("")).ok() || i > 8);
}

TEST_F(AdmissionTenantsTest, AShortTaskOfAnotherTenantInterruptsALongOneAndNothingElseDoes) {
  Make(100);
  HoldThread(/*with_tiles=*/true);
  ASSERT_TRUE(admission_->Submit(Asking(a_, 1), Note("(own)")).ok());
  ASSERT_TRUE(admission_->Submit(Asking(c_, 1e6), Note("(long)")).ok());
  Admission::Request large = Asking(MakeAccount("d"), 1);  // It claims to be short.
  large.undecoded_bytes = 1e9;
  ASSERT_TRUE(admission_->Submit(large, Note("(large)")).ok());
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(events(), "");
  std::thread::id ran_on;
  const auto nested = [&](RunningTask& task) {
    EXPECT_TRUE(task.Begin({.flops = 1}).ok());
    ran_on = std::this_thread::get_id();
    for (int i = 0; i < 5; ++i) {
      task.Look();  // Depth one: nothing interrupts what interrupts.
      absl::SleepFor(absl::Milliseconds(1));
    }
    const MutexLock lock(mu_);
    events_ += "b";
  };
  ASSERT_TRUE(admission_->Submit(Asking(b_, 1), nested).ok());
  ASSERT_TRUE(admission_->Submit(Asking(MakeAccount("e"), 1), Note("e")).ok());
  EXPECT_TRUE(WaitForEvents("be")) << "although long ones came first: " << events();
  EXPECT_EQ(ran_on, thread_);
  Open();
  WaitUntilIdle();
  EXPECT_GE(interrupted_, milliseconds(5));
}

// Green by chance where the machine stands still for 0.2 ms between the two looks.
TEST_F(AdmissionTenantsTest, WhatJustCameIsSeenAtTheNextTile) {
  Make(100);
  std::string seen;
  ASSERT_TRUE(admission_
                  ->Submit(Asking(a_, 1e7),
                           [&](RunningTask& task) {
                             EXPECT_TRUE(task.Begin({.flops = 1e7}).ok());
                             Work(milliseconds(100));
                             EXPECT_TRUE(admission_->Submit(Asking(c_, 1e6), Note("c")).ok());  // Does not interrupt.
                             task.Look();
                             EXPECT_TRUE(admission_->Submit(Asking(b_, 1), Note("b")).ok());
                             task.Look();
                             seen = events();
                             task.Stopped();
                           })
                  .ok());
  WaitUntilIdle();
  EXPECT_EQ(seen, "b");
}

TEST_F(AdmissionTenantsTest, WhatTurnsOutTooLongToInterruptWaitsForItsTurn) {
  Make(100);
  HoldThread(/*with_tiles=*/true);
  Admission::Request request = Asking(b_, 1);  // It claims to be short, and has to be decoded to know.
  request.undecoded_bytes = 1000;
  std::atomic<bool> put_back{false};
  ASSERT_TRUE(admission_
                  ->Submit(request,
                           [&](RunningTask& task) {
                             EXPECT_TRUE(task.MustWait({.flops = 1e6}));
                             EXPECT_TRUE(task.PutBack({.flops = 1e6}, Note("b")));
                             put_back = true;
                           })
                  .ok());
  EXPECT_TRUE(WaitFor([&] { return b_->tenant->compute_time().count() > 0; })) << "it was decoded";
  EXPECT_TRUE(put_back);
  EXPECT_EQ(events(), "");
  EXPECT_EQ(admission_->outstanding(), 2);
  EXPECT_EQ(b_->tenant->requests_computed(), 0);
  Open();
  WaitUntilIdle();
  EXPECT_EQ(events(), "b");
  EXPECT_EQ(admission_->counts().queued, 2);
  EXPECT_EQ(admission_->counts().dropped, 0);
}

TEST_F(AdmissionTenantsTest, WhoInterruptsHasNoMoreThanItsPartOfTheThread) {
  Make(10'000);
  HoldThread(/*with_tiles=*/true);
  std::atomic<int> done{0};
  const auto busy = [&](RunningTask& task) {
    EXPECT_TRUE(task.Begin({.flops = 1000}).ok());
    Work(milliseconds(1));
    ++done;
  };
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(admission_->Submit(Asking(b_, 1000), busy).ok());
  EXPECT_TRUE(WaitFor([&] { return done >= 300; })) << done;
  Open();
  WaitUntilIdle();
  EXPECT_EQ(done, 2000);
  const std::chrono::nanoseconds own = held_ - interrupted_;
  EXPECT_GE(own, milliseconds(200)) << "of 500 ms at least: half, but for 50 ms";
}

// A thread that helps may be the last that works for a task: what interrupts it there is due no more than elsewhere.
TEST_F(AdmissionTenantsTest, AThreadThatHelpsComesBack) {
  Make(10'000, /*threads=*/2);
  std::atomic<int> inside{0}, done{0};
  std::atomic<bool> others_wait{false};
  std::atomic<int> done_by_then{0};
  // By the clock, as it is charged while it runs: a machine that stands still gives the others as much.
  std::atomic<Clock::rep> theirs{0}, own_by_then{0};
  const auto help = [&](RunningTask& task) {
    const Clock::time_point begin = Clock::now();
    ++inside;
    EXPECT_TRUE(WaitFor([&] { return inside == 2; })) << "both threads have one iteration";
    if (std::this_thread::get_id() == thread_) return;
    EXPECT_TRUE(WaitFor([&] { return others_wait.load(); }));
    for (int tile = 0; tile < 500; ++tile) {
      task.Look();
      Work(std::chrono::microseconds(200));
    }
    done_by_then = done.load();
    own_by_then = (Clock::now() - begin).count() - theirs.load();
  };
  ASSERT_TRUE(admission_
                  ->Submit(Asking(a_, 1e7),
                           [&](RunningTask& task) {
                             EXPECT_TRUE(task.Begin({.flops = 1e7}).ok());
                             thread_ = std::this_thread::get_id();
                             executor_->ParallelFor(2, [&](std::int64_t) { help(task); });
                             task.Stopped();
                           })
                  .ok());
  ASSERT_TRUE(WaitFor([&] { return inside == 2; }));
  for (int i = 0; i < 2000; ++i) {
    const auto busy = [&](RunningTask& task) {
      const Clock::time_point begin = Clock::now();
      EXPECT_TRUE(task.Begin({.flops = 1000}).ok());
      Work(milliseconds(1));
      theirs += (Clock::now() - begin).count();
      ++done;
    };
    ASSERT_TRUE(admission_->Submit(Asking(b_, 1000), busy).ok());
  }
  others_wait = true;
  WaitUntilIdle();
  EXPECT_EQ(done, 2000);
  EXPECT_GT(done_by_then, 0) << "they interrupt here too";
  const auto own_ms = std::chrono::duration_cast<milliseconds>(Clock::duration(own_by_then.load())).count();
  EXPECT_LT(done_by_then, own_ms + 900) << "its own 100 ms, and as much again and 50 ms of the others: about 150";
}

TEST_F(AdmissionTenantsTest, AFalseHintRefusesNobodyElse) {
  Make(100);
  HoldThread(/*with_tiles=*/false);
  Admission::Request lie = Asking(b_, 1e12);
  lie.undecoded_bytes = 1e5;
  ASSERT_TRUE(admission_->Submit(lie, Note("b")).ok());
  Admission::Request asked{.deadline = system_clock::now() + milliseconds(60'000), .account = c_};
  EXPECT_TRUE(admission_->Check(asked).ok());
  asked.account = b_;
  EXPECT_TRUE(admission_->Check(asked).ok()) << "nor another caller of the tenant";
  lie.deadline = asked.deadline;
  EXPECT_FALSE(admission_->Check(lie).ok()) << "but whoever gives it";
}

TEST_F(AdmissionTenantsTest, WhatOneTenantsTasksTakeIsNotExpectedOfAnothers) {
  Make(100);
  const auto slow = [](RunningTask& task) {
    EXPECT_TRUE(task.Begin({.flops = 1000}).ok());  // A millisecond, by the model.
    absl::SleepFor(absl::Milliseconds(20));
  };
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(admission_->Submit(Asking(b_, 1000), slow).ok());
  WaitUntilIdle();
  EXPECT_GT(admission_->PredictedMs({.flops = 10'000}, "b"), 20);
  EXPECT_DOUBLE_EQ(admission_->PredictedMs({.flops = 10'000}, "c"), 10);
  HoldThread(/*with_tiles=*/true);
  ASSERT_TRUE(admission_->Submit(Asking(c_, 10'000), Note("c")).ok());
  EXPECT_TRUE(WaitForEvents("c")) << "short enough to interrupt";
}

TEST_F(AdmissionTenantsTest, WhatInterruptsTeachesWhatItTakes) {
  Make(100);
  HoldThread(/*with_tiles=*/true);
  std::atomic<int> done{0};
  const auto slow = [&](RunningTask& task) {
    EXPECT_TRUE(task.Begin({.flops = 1000}).ok());  // A millisecond, by the model.
    Work(milliseconds(5));
    ++done;
  };
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(admission_->Submit(Asking(b_, 1000), slow).ok());
  EXPECT_TRUE(WaitFor([&] { return done == 10; })) << done << ": 50 ms";
  Open();
  WaitUntilIdle();
  EXPECT_GT(admission_->PredictedMs({.flops = 1000}, "b"), 1.2);
}

TEST_F(AdmissionTenantsTest, ADeadlineIsPlannedWithWhatIsReallyBeforeIt) {
  Make(100);
  HoldThread(/*with_tiles=*/false);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(admission_->Submit(Asking(a_, 1e6), Note("a")).ok());  // A second each.
  Admission::Request soon = Asking(a_, 1000);
  soon.deadline = system_clock::now() + milliseconds(9000);
  EXPECT_EQ(Reason(admission_->Check(soon)), "DEADLINE_UNREACHABLE") << "18 s of a's own";
  soon.account = b_;
  soon.deadline = system_clock::now() + milliseconds(4000);
  EXPECT_TRUE(admission_->Check(soon).ok()) << "b interrupts, or is next";
  soon.cost = WorkCost{.flops = 1e5};
  EXPECT_EQ(Reason(admission_->Check(soon)), "DEADLINE_UNREACHABLE")
      << "too long to interrupt, and a task runs for 10 s";
}

TEST_F(AdmissionTenantsTest, WhatAFreeThreadIsAboutToTakeRefusesNobody) {
  Make(10, /*threads=*/2);
  ASSERT_TRUE(executor_->Submit([this] { gate_.WaitForNotification(); }));  // A thread that has not come as yet.
  absl::Status begun = absl::UnknownError("not run");
  Admission::Request request = Asking(a_, 2e7);  // 20 s on one thread, 10 s on both.
  request.deadline = system_clock::now() + milliseconds(15'000);
  ASSERT_TRUE(admission_
                  ->Submit(request,
                           [&](RunningTask& task) {
                             EXPECT_TRUE(admission_->Submit(Asking(b_, 1), Note("b")).ok());
                             begun = task.Begin({.flops = 2e7});
                             task.Stopped();
                           })
                  .ok());
  WaitUntilIdle();  // The thread that computed takes b's.
  EXPECT_TRUE(begun.ok()) << begun;
}

TEST_F(AdmissionTenantsTest, WhatMayNotInterruptIsBeforeNobodyWhoMay) {
  Make(100);
  HoldThread(/*with_tiles=*/true);
  ASSERT_TRUE(admission_->Submit(Asking(MakeAccount("d"), 2e7), Note("d")).ok());  // 20 s.
  Admission::Request soon = Asking(b_, 1000);
  soon.deadline = system_clock::now() + milliseconds(4000);
  EXPECT_TRUE(admission_->Check(soon).ok()) << "d does not interrupt, b does";
  ASSERT_TRUE(admission_->Submit(Asking(c_, 1e5), Note("c")).ok());  // 100 ms: too long to interrupt.
  soon.account = c_;
  soon.deadline = system_clock::now() + milliseconds(4000);
  EXPECT_EQ(Reason(admission_->Check(soon)), "DEADLINE_UNREACHABLE") << "behind its own, which waits for 10 s";
}

}  // namespace
}  // namespace attend::server
