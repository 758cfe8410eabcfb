#include "server/rpc/poller.h"

#include <grpc/grpc.h>
#include <pthread.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "core/runtime/cpu.h"

namespace attend::server {
namespace {

using std::chrono::milliseconds;

// Events that may keep a call waiting for a moment without any: while a busy thread has none, answers must not wait.
constexpr int kMaxEventsBeforeIdle = 64;

// Events between two looks at the clock, which would cost each a twentieth of a microsecond.
constexpr int kEventsBetweenLooks = 64;

// A polling thread has a few microseconds' work for each small call, which would otherwise wait one or two milliseconds
// for the end of a compute thread's time slice. Measured beside 32 MiB calls on one core: it gets the core at once,
// except from within a compute thread's system call that sends a large response, which takes up to 1 ms.
constexpr std::chrono::microseconds kPollingSlice(100);

// How often the second thread looks at the first: while that one works, and at last while it waits.
constexpr milliseconds kLookAtBusy(10);
constexpr milliseconds kLookAtIdle(100);

// Processor time inside one question after which the second thread helps. Reading a message of 4 MiB takes less.
constexpr std::chrono::nanoseconds kKept = milliseconds(2);

// Processor time that the thread has used.
std::chrono::nanoseconds Used(std::thread& thread) {
  clockid_t clock;
  timespec used;
  if (pthread_getcpuclockid(thread.native_handle(), &clock) != 0 || clock_gettime(clock, &used) != 0) return {};
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

}  // namespace

Poller::Poller(std::unique_ptr<grpc::ServerCompletionQueue> queue, const Options& options)
    : on_delay_(options.on_delay),
      on_busy_(options.on_busy),
      queue_(std::move(queue)),
      watch_(options.calls, options.memory) {}

void Poller::Start() {
  first_ = std::thread([this] { RunFirst(); });
  second_ = std::thread([this] { RunSecond(); });
}

void Poller::Shutdown() {
  {
    const MutexLock lock(end_mu_);
    if (std::exchange(ends_, true)) return;
    ended_.SignalAll();
  }
  queue_->Shutdown();
  if (second_.joinable()) second_.join();  // Before the first, at whose clock it looks.
  if (first_.joinable()) first_.join();
}

void Poller::RunFirst() {
  RequestShortSlice(kPollingSlice);
  Turn turn{.patience = CallWatch::kInterval};
  do {
    questions_.store(questions_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  } while (TakeEvent(turn));
}

void Poller::RunSecond() {
  RequestShortSlice(kPollingSlice);
  std::uint64_t question = 0;
  std::chrono::nanoseconds used_before{}, used{};
  milliseconds pause = kLookAtBusy;
  while (SleepFor(pause)) {
    const std::chrono::nanoseconds now = Used(first_);
    pause = now - used < pause / 10 ? std::min(2 * pause, kLookAtIdle) : kLookAtBusy;
    used = now;
    if (on_busy_ && pause == kLookAtBusy) on_busy_();
    if (const std::uint64_t asked = questions_.load(std::memory_order_relaxed); asked != question) {
      question = asked;
      used_before = now;
    } else if (now - used_before >= kKept) {
      stands_in_.store(true, std::memory_order_relaxed);
      if (on_busy_) on_busy_();
      const bool goes_on = StandIn(question);
      stands_in_.store(false, std::memory_order_relaxed);
      if (!goes_on) return;
    }
  }
}

bool Poller::StandIn(std::uint64_t kept_at) {
  Turn turn{.patience = kLookAtBusy};
  while (questions_.load(std::memory_order_relaxed) == kept_at || turn.somebody_waits) {
    if (!TakeEvent(turn)) return false;
  }
  return true;
}

bool Poller::SleepFor(milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  const MutexLock lock(end_mu_);
  while (!ends_) {
    if (!ended_.WaitUntil(end_mu_, until)) return !ends_;
  }
  return false;
}

bool Poller::TakeEvent(Turn& turn) {
  using Queue = grpc::CompletionQueue;
  void* tag = nullptr;
  bool ok = false;
  const Queue::NextStatus next =
      queue_->AsyncNext(&tag, &ok, turn.somebody_waits ? gpr_inf_past(GPR_CLOCK_MONOTONIC) : turn.until);
  if (next == Queue::SHUTDOWN) return false;
  const MutexLock lock(mu_);
  if (next == Queue::TIMEOUT || ++turn.events >= kEventsBetweenLooks) LookAtClock(turn);
  if (next == Queue::GOT_EVENT) Handle(tag, ok);
  if (turn.somebody_waits && (next == Queue::TIMEOUT || ++events_waited_ >= kMaxEventsBeforeIdle)) WakeIdle();
  turn.somebody_waits = !wait_for_idle_.empty();
  return true;
}

// A thread without events looks at its calls as often as a busy one.
void Poller::LookAtClock(Turn& turn) {
  turn.events = 0;
  turn.until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(turn.patience.count(), GPR_TIMESPAN));
  const Clock::time_point now = Clock::now();
  if (now < next_look_) return;
  next_look_ = now + CallWatch::kInterval;
  watch_.Look(now);
}

void Poller::Handle(void* tag, bool ok) {
  const auto& event = *static_cast<Call::Tag*>(tag);
  if (event.call != nullptr) {
    event.call->Handle(event.operation, ok);
  } else {
    OnProbe();
  }
}

void Poller::WakeIdle() {
  events_waited_ = 0;
  // Those who ask again meanwhile wait for the next time.
  const std::vector<CallRef> waited = std::exchange(wait_for_idle_, {});
  for (const CallRef& call : waited) call->HandleIdle();
}

std::chrono::nanoseconds Poller::UsedTime() { return Used(first_) + Used(second_); }

void Poller::ForEachCall(absl::FunctionRef<void(const Call&)> use) {
  const MutexLock lock(mu_);
  watch_.ForEach(use);
}

std::uint64_t Poller::MeasureDelay() {
  // An event of no call.
  static constexpr Call::Tag kProbe{nullptr, Call::Operation::kWake};
  if (probe_pending_.load(std::memory_order_acquire)) return probes_set_ + 1;
  probe_pending_.store(true, std::memory_order_relaxed);
  probe_set_ = Clock::now();
  probe_ = std::make_unique<grpc::Alarm>();
  probe_->Set(queue_.get(), gpr_now(GPR_CLOCK_MONOTONIC), const_cast<Call::Tag*>(&kProbe));
  return ++probes_set_;
}

void Poller::OnProbe() {
  if (on_delay_) on_delay_(Clock::now() - probe_set_);
  probes_handled_.fetch_add(1, std::memory_order_release);
  probe_pending_.store(false, std::memory_order_release);
}

}  // namespace attend::server
