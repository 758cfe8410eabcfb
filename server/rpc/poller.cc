#include "server/rpc/poller.h"

#include <grpc/grpc.h>

#include <algorithm>
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

// How often the second thread looks at the first: while that one works, and at last while it waits. How often the
// others look at one that stands in.
constexpr milliseconds kLookAtBusy(10);
constexpr milliseconds kLookAtIdle(100);
constexpr milliseconds kLookAtStandIn(3);

// Processor time inside one question after which the next thread helps. Reading a message of 4 MiB takes less.
constexpr std::chrono::nanoseconds kKept = milliseconds(2);

}  // namespace

Poller::Poller(std::unique_ptr<grpc::ServerCompletionQueue> queue, const Options& options)
    : make_room_(options.make_room),
      on_delay_(options.on_delay),
      on_busy_(options.on_busy),
      queue_(std::move(queue)),
      watch_(options.calls, options.memory) {}

void Poller::Start() {
  threads_[0].Start([this] { RunFirst(); });
  for (std::size_t i = 1; i < kThreads; ++i) threads_[i].Start([this, i] { RunStandIn(i); });
}

void Poller::Shutdown() {
  {
    const MutexLock lock(end_mu_);
    if (std::exchange(ends_, true)) return;
    for (CondVar& wake : wake_) wake.Signal();
  }
  queue_->Shutdown();
  for (std::size_t i = kThreads; i-- > 0;) threads_[i].Join();  // Each before the one at whose clock it looks.
}

void Poller::RunFirst() {
  RequestShortSlice(kPollingSlice);
  Turn turn{.patience = CallWatch::kInterval};
  while (TakeEvent(threads_[0], turn)) {
  }
  threads_[0].End();
}

void Poller::RunStandIn(std::size_t number) {
  RequestShortSlice(kPollingSlice);
  const ReadingThread& watched = threads_[number - 1];
  const milliseconds at_busy = number == 1 ? kLookAtBusy : kLookAtStandIn;
  std::uint64_t question = 0;
  std::chrono::nanoseconds used_before{}, used{};
  milliseconds pause = at_busy;
  while (SleepBeforeLook(number, pause)) {
    const std::chrono::nanoseconds now = watched.UsedTime();
    pause = number == 1 && now - used < pause / 10 ? std::min(2 * pause, kLookAtIdle) : at_busy;
    used = now;
    if (on_busy_ && number == 1 && pause == kLookAtBusy) on_busy_();
    if (const std::uint64_t asked = watched.questions(); asked != question || !watched.IsInside(asked)) {
      question = asked;
      used_before = now;
    } else if (now - used_before >= kKept && !StandIn(number, question)) {
      return;
    }
  }
}

bool Poller::StandIn(std::size_t number, std::uint64_t kept_at) {
  SetStandsIn(number, true);
  if (on_busy_) on_busy_();
  Turn turn{.patience = kLookAtBusy};
  bool goes_on = true;
  while (goes_on && (threads_[number - 1].IsInside(kept_at) || turn.somebody_waits)) {
    goes_on = TakeEvent(threads_[number], turn);
  }
  threads_[number].End();
  SetStandsIn(number, false);
  return goes_on;
}

void Poller::LookSoon() {
  const MutexLock lock(end_mu_);
  looks_soon_ = true;
  wake_[1].Signal();
}

void Poller::SetStandsIn(std::size_t number, bool stands_in) {
  const MutexLock lock(end_mu_);
  const std::uint32_t all = standing_in_.load(std::memory_order_relaxed), one = std::uint32_t{1} << number;
  standing_in_.store(stands_in ? all | one : all & ~one, std::memory_order_relaxed);
  if (stands_in && number + 1 < kThreads) wake_[number + 1].Signal();
}

bool Poller::SleepBeforeLook(std::size_t number, milliseconds pause) {
  const MutexLock lock(end_mu_);
  while (!ends_ && number > 1 && !StandsIn(number - 1)) wake_[number].Wait(end_mu_);
  const auto until = std::chrono::steady_clock::now() + pause;
  while (!ends_ && !(number == 1 && looks_soon_)) {
    if (!wake_[number].WaitUntil(end_mu_, until)) break;
  }
  if (number == 1) looks_soon_ = false;
  return !ends_;
}

std::array<std::uint64_t, Poller::kThreads> Poller::Questions() const {
  std::array<std::uint64_t, kThreads> questions{};
  for (std::size_t i = 0; i < kThreads; ++i) {
    if (i == 0 || StandsIn(i)) questions[i] = threads_[i].questions();
  }
  return questions;
}

bool Poller::TakeEvent(ReadingThread& thread, Turn& turn) {
  using Queue = grpc::CompletionQueue;
  void* tag = nullptr;
  bool ok = false;
  thread.BeginQuestion();
  const Queue::NextStatus next =
      queue_->AsyncNext(&tag, &ok, turn.somebody_waits ? gpr_inf_past(GPR_CLOCK_MONOTONIC) : turn.until);
  thread.BeginHandling();
  if (next == Queue::SHUTDOWN) return false;
  if (next == Queue::GOT_EVENT && ok) MakeRoomFor(*static_cast<const Call::Tag*>(tag));
  const MutexLock lock(mu_);
  if (next == Queue::TIMEOUT || ++turn.events >= kEventsBetweenLooks) LookAtClock(turn);
  if (next == Queue::GOT_EVENT) Handle(tag, ok);
  if (turn.somebody_waits && (next == Queue::TIMEOUT || ++events_waited_ >= kMaxEventsBeforeIdle)) WakeIdle();
  turn.somebody_waits = !wait_for_idle_.empty();
  return true;
}

// Here and not in the handler, because the call that has to end may be another poller's: who holds one poller's lock
// waits for no other.
void Poller::MakeRoomFor(const Call::Tag& event) const {
  const bool is_arrival = event.call != nullptr && event.operation == Call::Operation::kRequest;
  if (is_arrival && make_room_) event.call->made_room_ = make_room_();
}

bool Poller::EndFirst() {
  const MutexLock lock(mu_);
  return watch_.EndFirst();
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
  if (event.operation == Call::Operation::kRequest) {
    arrived_.store(arrived_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
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
  arrived_before_ = arrived_.load(std::memory_order_relaxed);
  probe_ = std::make_unique<grpc::Alarm>();
  probe_->Set(queue_.get(), gpr_now(GPR_CLOCK_MONOTONIC), const_cast<Call::Tag*>(&kProbe));
  return ++probes_set_;
}

void Poller::OnProbe() {
  if (on_delay_) on_delay_(Clock::now() - probe_set_);
  arrived_meanwhile_.store(arrived_.load(std::memory_order_relaxed) - arrived_before_, std::memory_order_relaxed);
  probes_handled_.fetch_add(1, std::memory_order_release);
  probe_pending_.store(false, std::memory_order_release);
}

}  // namespace attend::server
