#include "server/rpc/call_watch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// Calls beyond `max_calls` that may wait to hear that they have ended: a quarter of it, and at least so many.
constexpr int kLeastReserve = 64;

// Later than any call that waits.
constexpr CallWatch::Turn kTurnOfSpoken = CallWatch::Turn{1} << 62;

constexpr std::int64_t kRetryDelayMs = 250;

absl::Status TooManyCalls(int max_calls) {
  return BusyError(reason::kTooManyCalls,
                   absl::StrCat("as many calls are in progress as this server takes at a time, which is ", max_calls,
                                " (--max-calls)"),
                   kRetryDelayMs);
}

}  // namespace

void CallWatch::Move(Call& call, CallList& to) {
  if (call.list_ != nullptr) call.list_->Remove(call);
  to.Append(call);
  call.list_ = &to;
  TellTurn();
}

void CallWatch::TellTurn() {
  const auto arrival = [](const Call& call) { return call.arrival().time_since_epoch().count(); };
  Turn turn = kNobodysTurn;
  if (silent_.first() != nullptr) {
    turn = arrival(*silent_.first());
  } else if (held_.first() != nullptr) {
    turn = kTurnOfSpoken + arrival(*held_.first());
  }
  first_turn_.store(turn, std::memory_order_relaxed);
}

Call* CallWatch::FirstToGiveWay() {
  for (CallList* const list : {&silent_, &held_}) {
    for (Call* call = list->first(); call != nullptr; call = list->first()) {
      if (!call->finished()) return call;
      Move(*call, others_);  // Ending it once more would free nothing: its status is on the way.
      call->given_up_ = true;
    }
  }
  return nullptr;
}

bool CallWatch::EndFirst() {
  Call* const first = FirstToGiveWay();
  if (first != nullptr) GiveUp(*first, TooManyCalls(limits_.max_calls));
  return first != nullptr;
}

bool CallWatch::IsFarBeyond(int max_calls, int calls) {
  return calls > max_calls + std::max(max_calls / 4, kLeastReserve);
}

absl::Status CallWatch::Add(Call& call, int calls, bool made_room) {
  absl::Status status;
  const bool is_far_beyond = IsFarBeyond(limits_.max_calls, calls);
  if (is_far_beyond) call.context_.TryCancel();
  if (is_far_beyond || (calls > limits_.max_calls && !made_room && !EndFirst())) {
    status = TooManyCalls(limits_.max_calls);
  }
  call.given_up_ = !status.ok();
  Move(call, status.ok() ? silent_ : others_);
  return status;
}

void CallWatch::GotMessage(Call& call) {
  if (!call.given_up_) Move(call, call.gives_way_ ? held_ : others_);
}

void CallWatch::Remove(Call& call) {
  call.list_->Remove(call);
  call.list_ = nullptr;
  TellTurn();
}

void CallWatch::ForEach(absl::FunctionRef<void(const Call&)> use) const {
  for (const CallList* const list : {&silent_, &held_, &others_}) {
    for (const Call* call = list->first(); call != nullptr; call = CallList::After(*call)) use(*call);
  }
}

void CallWatch::GiveUp(Call& call, const absl::Status& status) {
  Move(call, others_);
  call.given_up_ = true;
  // Its status would wait for a response that perhaps nobody takes, and its place with it.
  if (call.writing_) return call.context_.TryCancel();
  call.GiveUp(status);
}

bool CallWatch::IsStalled(const Call& call, Clock::time_point now, bool memory_is_short) const {
  const Clock::rep since = call.sending_since_.load(std::memory_order_relaxed);
  if (since == 0) return false;
  const double bytes = static_cast<double>(call.sending_bytes_.load(std::memory_order_relaxed));
  const absl::Duration patience =
      memory_is_short
          ? limits_.stalled_answer_timeout / MemoryShortage::kImpatience
          : limits_.stalled_answer_timeout + absl::Seconds(bytes / static_cast<double>(limits_.min_bytes_per_second));
  return absl::FromChrono(now.time_since_epoch() - Clock::duration(since)) > patience;
}

void CallWatch::Look(Clock::time_point now) {
  for (Call* call = silent_.first(); call != nullptr; call = silent_.first()) {
    if (absl::FromChrono(now - call->arrival()) <= limits_.first_message_timeout) break;
    GiveUp(*call, NoMessageError(limits_.first_message_timeout));
  }
  const bool memory_is_short = shortage_.Look();
  CancelStalled(held_, now, memory_is_short);
  CancelStalled(others_, now, memory_is_short);
}

void CallWatch::CancelStalled(const CallList& list, Clock::time_point now, bool memory_is_short) const {
  for (Call* call = list.first(); call != nullptr; call = CallList::After(*call)) {
    if (IsStalled(*call, now, memory_is_short)) call->context_.TryCancel();
  }
}

}  // namespace attend::server
