#include "server/rpc/connection_guard.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>

#include "core/runtime/cpu.h"

namespace attend::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// How long it is to the next look: while something is received, while nothing is, and while an inquiry is open. An
// attack has taken 1.5 GiB in a second.
constexpr milliseconds kLeastPause(5);
constexpr milliseconds kBusyPause(20);
constexpr milliseconds kIdlePause(2000);
constexpr milliseconds kAskingPause(3);

// An inquiry without a result is closed then, and so long after the last connection was ended.
constexpr seconds kInquiryTime(10);

// So many times what a look took nothing wakes the guard: with many connections looks take milliseconds.
constexpr int kLeastPauseOfLook = 4;
constexpr milliseconds kMostRest(100);

// A polling thread that has asked for no event for so long is kept. One without events asks once a second.
constexpr seconds kKept(2);
// After an inquiry about kept threads without a result.
constexpr seconds kKeptAgain(30);

constexpr std::int64_t kLeastUnexplained = 64 << 10;
constexpr std::int64_t kLeastWhenLate = 128 << 10;
constexpr std::int64_t kLeastOfWorst = 1 << 20;
// Calls that wait behind an upload are a smaller part of all that is read.
constexpr std::int64_t kPartOfAll = 16;

// Frames, records of TLS and their padding around one message.
constexpr std::int64_t kAroundMessage = 256;
// Of what is sent to it, a peer may return one part in so many.
constexpr std::int64_t kReturned = 8;

// More than the greeting of a connection.
constexpr std::int64_t kGreeting = 4 << 10;

// When memory of ended connections is asked back, when that was enough if it was, and when it is not awaited any more
// because there are ever new ones; gRPC closes them within milliseconds.
constexpr milliseconds kGiveBackAfter(200);
constexpr milliseconds kSettledAfter(500);
constexpr seconds kNeverSettles(2);

// For how long what was counted may still be there.
constexpr seconds kPeriod(2);

// For how long bytes must have been unexplained: a thread that holds them back may get no core for a while.
constexpr milliseconds kSuspected(50);

// Calls with too much metadata, and for how many peers they are counted: more than an honest client makes before it
// has seen the server's SETTINGS.
constexpr int kMostOversized = 8;
constexpr std::size_t kMostPeers = 4096;

// It has microseconds' work at a time, and an attack that it is to end may keep all cores.
constexpr std::chrono::microseconds kSlice(100);

// Uncounted memory that comes and goes is no traffic.
constexpr std::int64_t kNoise = 1 << 20;

}  // namespace

std::string_view EndReasonName(EndReason reason) {
  switch (reason) {
    case EndReason::kMemory: return "uncounted_memory";
    case EndReason::kThread: return "kept_thread";
    case EndReason::kMetadata: return "too_much_metadata";
  }
  return "";
}

ConnectionGuard::ConnectionGuard(const Limits& limits, Surroundings surroundings, HandedCalls& calls)
    : limits_(limits), around_(std::move(surroundings)), calls_(calls), pause_(kBusyPause) {}

void ConnectionGuard::Start() {
  thread_ = std::thread([this] { Run(); });
}

void ConnectionGuard::Stop() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mu_);
    stops_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void ConnectionGuard::OnTraffic() {
  // This and Wait write one flag and then read the other's: in one order for all, or both could read what was before,
  // and the guard would sleep through the traffic.
  traffic_.store(true, std::memory_order_seq_cst);
  if (!sleeps_long_.load(std::memory_order_seq_cst) || !sleeps_long_.exchange(false, std::memory_order_relaxed)) return;
  const MutexLock lock(mu_);
  changed_.Signal();
}

void ConnectionGuard::OnTooMuchMetadata(const std::string& peer) {
  const std::string canonical = CanonicalPeer(peer);
  const MutexLock lock(mu_);
  if (oversized_calls_.size() >= kMostPeers) oversized_calls_.clear();
  if (++oversized_calls_[canonical] < kMostOversized) return;
  oversized_calls_.erase(canonical);
  oversized_.insert(canonical);
  changed_.Signal();
}

void ConnectionGuard::EndOversized() {
  absl::flat_hash_set<std::string> oversized;
  {
    const MutexLock lock(mu_);
    oversized.swap(oversized_);
  }
  if (oversized.empty()) return;
  for (const ConnectionTraffic& traffic : around_.traffic()) {
    if (!oversized.contains(traffic.peer) || traffic.is_of_many || !around_.shut_down(traffic.number)) continue;
    ended_[static_cast<std::size_t>(EndReason::kMetadata)].fetch_add(1, std::memory_order_relaxed);
    around_.on_ended({.reason = EndReason::kMetadata,
                      .peer = traffic.peer,
                      .read_bytes = traffic.read,
                      .handed_bytes = 0,
                      .calls = kMostOversized});
  }
}

void ConnectionGuard::Run() {
  RequestShortSlice(kSlice);
  Clock::time_point now = Clock::now();
  for (;;) {
    const Clock::duration wanted = Look(now);
    if (!Wait(now, wanted)) return;
    now = Clock::now();
  }
}

bool ConnectionGuard::Wait(Clock::time_point begin, Clock::duration wanted) {
  const Clock::time_point end = Clock::now();
  const Clock::time_point rest = end + std::min<Clock::duration>(kLeastPauseOfLook * (end - begin), kMostRest);
  const MutexLock lock(mu_);
  while (!stops_ && changed_.WaitUntil(mu_, rest)) {
  }
  sleeps_long_.store(wanted > kBusyPause, std::memory_order_seq_cst);
  // What came since the look did not wake it.
  if (traffic_.load(std::memory_order_seq_cst)) wanted = std::min<Clock::duration>(wanted, kBusyPause);
  // Woken early by OnTraffic, or by nobody, it looks early.
  if (!stops_ && oversized_.empty() && end + wanted > rest) changed_.WaitUntil(mu_, end + wanted);
  sleeps_long_.store(false, std::memory_order_relaxed);
  return !stops_;
}

Clock::duration ConnectionGuard::Look(Clock::time_point now) {
  const std::int64_t grown = Measure(now);
  const bool is_kept = IsThreadKept(now);
  EndOversized();
  if (inquiry_.has_value()) {
    // What keeps a thread must not hide what takes memory.
    if (uncounted_ - tolerated_ >= limits_.growth_bytes) inquiry_->reason = EndReason::kMemory;
    if (const FenceState fence = around_.fence_state(); fence != FenceState::kWaits) {
      Judge(fence, is_kept, now);
      BeginFence();
    }
    if (IsAnswered(now, is_kept)) Close(now);
  } else {
    tolerated_ = std::max<std::int64_t>(std::min(tolerated_, uncounted_), 0);
    const bool is_much = uncounted_ >= limits_.growth_bytes;
    if (uncounted_ - tolerated_ >= limits_.growth_bytes) {
      Open(EndReason::kMemory, now);
    } else if (is_kept && now >= no_thread_before_) {
      Open(EndReason::kThread, now);
    }
    // Afterwards, because it may take a tenth of a second and more, in which a flood goes on and the fence may pass.
    if (is_much) GiveBackWhatIsFree(now);
  }
  if (inquiry_.has_value()) {
    around_.look_at_threads();
    return kAskingPause;
  }
  const bool was_traffic = traffic_.exchange(false, std::memory_order_relaxed) || around_.is_any_kept();
  pause_ = was_traffic || std::abs(grown) >= kNoise ? Clock::duration(kBusyPause)
                                                    : std::min<Clock::duration>(2 * pause_, kIdlePause);
  return grown >= limits_.growth_bytes / 8 ? Clock::duration(kLeastPause) : pause_;
}

std::int64_t ConnectionGuard::Measure(Clock::time_point now) {
  const ProcessUse use = around_.memory();
  const std::int64_t uncounted = use.anonymous - use.counted;
  if (first_ < 0) first_ = std::max<std::int64_t>(uncounted, 0);
  if (now >= period_end_) {
    counted_before_ = std::exchange(counted_now_, 0);
    period_end_ = now + kPeriod;
  }
  counted_now_ = std::max(counted_now_, use.counted);
  beyond_recent_ = use.anonymous - first_ - std::max(counted_now_, counted_before_);
  least_since_given_back_ = std::min(least_since_given_back_, uncounted - first_);
  return uncounted - first_ - std::exchange(uncounted_, uncounted - first_);
}

bool ConnectionGuard::IsThreadKept(Clock::time_point now) {
  std::vector<std::uint64_t> questions = around_.questions();
  asked_.resize(questions.size(), now);
  bool is_kept = false;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    if (i >= questions_.size() || questions[i] != questions_[i] || questions[i] == 0) asked_[i] = now;
    is_kept = is_kept || now - asked_[i] >= kKept;
  }
  questions_ = std::move(questions);
  return is_kept;
}

void ConnectionGuard::Open(EndReason reason, Clock::time_point now) {
  inquiry_ = Inquiry{.reason = reason,
                     .until = now + kInquiryTime,
                     .first_number = around_.next_number(),
                     .before = {},
                     .read = {},
                     .suspected = {},
                     .ended = {},
                     .last_ended = std::nullopt,
                     .not_given_back = std::nullopt,
                     .gave_back = std::nullopt,
                     .beyond_plan = std::nullopt};
  // In this order, so that calls explain too much rather than too little.
  calls_.Start();
  around_.add_open_calls();
  calls_.AddEnded(now);
  BeginFence();
}

void ConnectionGuard::BeginFence() {
  inquiry_->read = around_.traffic();
  for (const ConnectionTraffic& traffic : inquiry_->read) {
    if (traffic.number < inquiry_->first_number) inquiry_->before.try_emplace(traffic.number, traffic);
  }
  around_.begin_fence();
}

std::int64_t ConnectionGuard::ReadSince(const ConnectionTraffic& traffic) const {
  const auto before = inquiry_->before.find(traffic.number);
  return traffic.read - (before == inquiry_->before.end() ? 0 : before->second.read);
}

std::int64_t ConnectionGuard::Unexplained(const ConnectionTraffic& traffic, const Handed& handed,
                                          bool receiving) const {
  const auto before = inquiry_->before.find(traffic.number);
  const std::int64_t sent = traffic.sent - (before == inquiry_->before.end() ? 0 : before->second.sent);
  const std::int64_t explaining_calls =
      receiving ? handed.calls : std::max<std::int64_t>(handed.calls - handed.receiving, 0);
  return ReadSince(traffic) - (handed.bytes + handed.bytes / 2) - kAroundMessage * handed.messages -
         limits_.max_metadata_bytes * explaining_calls -
         (receiving ? limits_.max_request_bytes * handed.receiving : 0) - sent / kReturned;
}

bool ConnectionGuard::EndSome(Clock::time_point now,
                              absl::FunctionRef<bool(const ConnectionTraffic&, const Handed&)> must_end) {
  const HandedCalls::ByPeer counted = calls_.Counted();
  bool some = false;
  for (const ConnectionTraffic& traffic : inquiry_->read) {
    const auto found = counted.find(traffic.peer);
    const Handed handed = found == counted.end() ? Handed() : found->second;
    if (inquiry_->ended.contains(traffic.number) || !must_end(traffic, handed)) continue;
    if (!around_.shut_down(traffic.number)) continue;
    some = true;
    inquiry_->ended.insert(traffic.number);
    ended_[static_cast<std::size_t>(inquiry_->reason)].fetch_add(1, std::memory_order_relaxed);
    around_.on_ended({.reason = inquiry_->reason,
                      .peer = traffic.peer,
                      .read_bytes = ReadSince(traffic),
                      .handed_bytes = handed.bytes,
                      .calls = handed.calls});
  }
  if (!some) return false;
  inquiry_->last_ended = now;
  inquiry_->until = now + kInquiryTime;
  if (!inquiry_->not_given_back.has_value()) inquiry_->not_given_back = now;
  return true;
}

std::int64_t ConnectionGuard::LeastWhenLate() const {
  const HandedCalls::ByPeer counted = calls_.Counted();
  std::int64_t worst = 0, read = 0;
  for (const ConnectionTraffic& traffic : inquiry_->read) {
    read += ReadSince(traffic);
    if (inquiry_->ended.contains(traffic.number)) continue;
    const auto found = counted.find(traffic.peer);
    const Handed handed = found == counted.end() ? Handed() : found->second;
    worst = std::max(worst, Unexplained(traffic, handed, /*receiving=*/true));
  }
  const std::int64_t least = worst >= read / kPartOfAll ? kLeastWhenLate : kLeastOfWorst;
  return worst < least ? least : std::max(worst / 2, kLeastWhenLate);
}

void ConnectionGuard::Judge(FenceState fence, bool is_kept, Clock::time_point now) {
  const bool is_late = fence == FenceState::kLate;
  const bool is_urgent = Uncounted() >= limits_.most_uncounted_bytes / 2;
  if (is_late && !is_urgent && !is_kept) return;
  const std::int64_t least = is_late ? LeastWhenLate() : kLeastUnexplained;
  const absl::flat_hash_map<std::int64_t, Suspicion> suspected = std::exchange(inquiry_->suspected, {});
  const bool some = EndSome(now, [&](const ConnectionTraffic& traffic, const Handed& handed) {
    if (Unexplained(traffic, handed, /*receiving=*/true) < least) return false;
    if (is_late || is_urgent) return true;
    ConnectionTraffic before = traffic;
    const auto found = suspected.find(traffic.number);
    const Suspicion suspicion = found == suspected.end() ? Suspicion() : found->second;
    before.read = suspicion.read;
    const bool is_confirmed = Unexplained(before, handed, /*receiving=*/true) >= least;
    if (is_confirmed && now - suspicion.since >= kSuspected) return true;
    inquiry_->suspected.emplace(traffic.number,
                                is_confirmed ? suspicion : Suspicion{.read = traffic.read, .since = now});
    return false;
  });
  if (inquiry_->reason == EndReason::kMemory && Uncounted() > limits_.most_uncounted_bytes) {
    EndBeyondPlan(some, now);
  } else {
    inquiry_->beyond_plan.reset();
  }
}

std::int64_t ConnectionGuard::Uncounted() const {
  // What is there at the start is the program's part of the plan, or a sanitizer's.
  return beyond_recent_ + std::min(first_, 2 * limits_.growth_bytes);
}

void ConnectionGuard::EndBeyondPlan(bool some, Clock::time_point now) {
  const Clock::time_point since = inquiry_->beyond_plan.value_or(now);
  inquiry_->beyond_plan = since;
  // Who ends others at each look does not keep it from going on.
  if (some && now - since < kSettledAfter) return;
  // The next look shows whether it helped.
  if (!inquiry_->gave_back.has_value() || now - *inquiry_->gave_back >= kGiveBackAfter) return GiveBack(now);
  EndSome(now, [&](const ConnectionTraffic& traffic, const Handed& handed) {
    return !traffic.is_of_many && Unexplained(traffic, handed, /*receiving=*/false) >= kLeastUnexplained;
  });
  const Clock::time_point quiet_since = std::max(since, inquiry_->last_ended.value_or(since));
  if (now - quiet_since < kSettledAfter && now - since < kNeverSettles) return;
  EndSome(now, [&](const ConnectionTraffic& traffic, const Handed& handed) {
    const std::int64_t bytes = handed.calls == 0 ? traffic.read : Unexplained(traffic, handed, /*receiving=*/false);
    return !traffic.is_of_many && bytes >= kGreeting;
  });
}

// What a flood took and freed stays with the allocator, and the next flood would come on top of it.
void ConnectionGuard::GiveBackWhatIsFree(Clock::time_point now) {
  if (now < next_give_back_) return;
  next_give_back_ = now + kPeriod;
  const std::int64_t free = around_.free_bytes();
  given_back_ = std::min(given_back_, free);
  // Memory that was given back, used and freed again while nobody asked counts as given back. That it is here again
  // shows in what has grown since.
  const bool has_returned =
      free >= limits_.growth_bytes && uncounted_ - least_since_given_back_ >= limits_.growth_bytes;
  if (free - given_back_ < limits_.growth_bytes && !has_returned) return;
  around_.give_back_memory();
  given_back_ = free;
  least_since_given_back_ = std::numeric_limits<std::int64_t>::max();
}

void ConnectionGuard::GiveBack(Clock::time_point now) {
  around_.give_back_memory();
  inquiry_->gave_back = now;
  inquiry_->not_given_back.reset();
}

bool ConnectionGuard::IsAnswered(Clock::time_point now, bool is_kept) {
  Inquiry& inquiry = *inquiry_;
  if (now >= inquiry.until) return true;
  if (inquiry.not_given_back.has_value()) {
    if (now - *inquiry.not_given_back >= kGiveBackAfter) GiveBack(now);
    return false;
  }
  return inquiry.reason == EndReason::kMemory ? uncounted_ - tolerated_ < limits_.growth_bytes / 2 : !is_kept;
}

void ConnectionGuard::Close(Clock::time_point now) {
  if (now >= inquiry_->until) {
    tolerated_ = std::max(tolerated_, uncounted_);
    if (inquiry_->reason == EndReason::kThread) no_thread_before_ = now + kKeptAgain;
  }
  calls_.Stop();
  inquiry_.reset();
}

}  // namespace attend::server
