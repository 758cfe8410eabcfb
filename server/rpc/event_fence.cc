#include "server/rpc/event_fence.h"

#include <algorithm>
#include <utility>

namespace attend::server {
namespace {

// Events on each queue, one after the other, after which calls that go on arriving are not waited for.
constexpr int kMostMarks = 8;

}  // namespace

EventFence::EventFence(std::vector<Poller*> pollers, std::vector<const ReadingThread*> others, int asked)
    : pollers_(std::move(pollers)), asked_(asked) {
  for (Poller* poller : pollers_) {
    for (const ReadingThread& thread : poller->threads()) threads_.push_back(&thread);
  }
  threads_.insert(threads_.end(), others.begin(), others.end());
}

void EventFence::Begin() {
  times_marked_ = 0;
  moments_.clear();
  for (const ReadingThread* thread : threads_) moments_.push_back(thread->Now());
  kept_ = moments_;
  taken_.clear();
}

FenceState EventFence::Look() {
  if (times_marked_ == 0) {
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      if (!threads_[i]->HasPublished(moments_[i])) return FenceState::kWaits;
    }
    Mark();
  }
  FenceState state = FenceState::kPassed;
  for (std::size_t i = 0; i < pollers_.size(); ++i) {
    const FenceState one = StateOf(i);
    if (one == FenceState::kWaits) return one;
    if (one == FenceState::kLate) state = one;
  }
  if (state == FenceState::kLate) return state;
  const bool may_wait =
      std::any_of(pollers_.begin(), pollers_.end(), [this](const Poller* poller) { return MayKeepBack(*poller); });
  if (!may_wait) return HaveHandled() ? FenceState::kPassed : FenceState::kWaits;
  if (times_marked_ == kMostMarks) return FenceState::kLate;
  Mark();
  return FenceState::kWaits;
}

bool EventFence::HaveHandled() {
  if (taken_.empty()) {
    for (const ReadingThread* thread : threads_) taken_.push_back(thread->Now());
  }
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    if (!threads_[i]->HasHandled(taken_[i])) return false;
  }
  return true;
}

void EventFence::Mark() {
  ++times_marked_;
  marks_.clear();
  for (Poller* poller : pollers_) marks_.push_back(poller->MeasureDelay());
}

FenceState EventFence::StateOf(std::size_t poller) {
  if (pollers_[poller]->measured_delays() >= marks_[poller]) return FenceState::kPassed;
  pollers_[poller]->MeasureDelay();  // Behind one that was waiting already, once that was handled.
  return AreAllKept(poller) ? FenceState::kLate : FenceState::kWaits;
}

bool EventFence::AreAllKept(std::size_t poller) {
  bool all = true;
  const std::size_t first = poller * Poller::kThreads;
  for (std::size_t i = first; i < first + Poller::kThreads; ++i) {
    const ReadingThread::Moment now = threads_[i]->Now();
    if (now.state != kept_[i].state) kept_[i] = now;
    all = threads_[i]->IsKeptSince(kept_[i]) && all;
  }
  return all;
}

bool EventFence::MayKeepBack(const Poller& poller) const {
  // All that it was asked for have arrived then; a few of them, one on each thread, were taken before.
  return poller.arrived_meanwhile() >= asked_ - static_cast<std::int64_t>(Poller::kThreads);
}

}  // namespace attend::server
