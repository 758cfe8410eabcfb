// Which of the waiting tasks is next: weighted fair queueing between tenants, first in first out within one.
//
// Each tenant has a virtual time: the processor time that its tasks have used, divided by its weight. The next task is
// one of the tenant with the least (start-time fair queueing, Goyal, Vin and Cheng 1996). Running tasks
// count in two ways. To decide whose turn it is, each counts the time that it is expected to take, or has taken if that
// is more. To decide where other tenants begin, it counts the time that it has taken so far: neither a wrong prediction
// nor a long task that is cancelled moves them.
//
// Nobody saves up more than a moment: a tenant without a task that waits begins 50 ms before the others, whether it
// comes back after a pause or has had something running all the time. What was used while nobody else was there is not
// owed.
//
// A task is expected to take what its tenant's tasks took lately, then what it costs once it is decoded, and at its end
// counts what it took. What callers say about their tasks is never charged, so that a false hint gains nothing. A
// tenant that is given another weight owes as much time of its own as before.
//
// Thread-compatible and without a clock: `now` is any clock's milliseconds, which never go back.
#ifndef ATTEND_SERVER_RPC_FAIR_QUEUE_H_
#define ATTEND_SERVER_RPC_FAIR_QUEUE_H_

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/identity/tenant.h"

namespace attend::server {

// `Item` is movable. Everything is linear in the number of tenants that have tasks waiting or running; but for Largest
// and TakeFromLargest, which look at every account that has some waiting.
template <typename Item>
class FairQueue {
 private:
  // What a task takes of a tenant that had none.
  static constexpr double kFirstMeanMs = 1;

  struct Entry {
    Item item;
    AccountRef account;
    double expected_ms;
    std::uint64_t number;  // In the order of arrival.
  };

  // The tasks of one tenant.
  struct Flow {
    TenantRef tenant;  // Null: of callers of whom nothing is known.
    std::deque<Entry> waiting;
    double waiting_ms = 0;
    double virtual_ms = 0;          // Of what has ended, and of what was used without the queue.
    double weight = 1;              // By which virtual_ms counts; its tenant's may be another since.
    double mean_ms = kFirstMeanMs;  // Moving average of what its tasks took.
    double start_ms = 0;            // Where it began when it last had nothing waiting.
    // Of the tasks that run: how many, what they are expected to take, what they have taken up to their latest pauses,
    // and of those that are not paused how many and the sum of the times since when.
    int running = 0;
    double expected_ms = 0;
    double paused_ms = 0;
    int going = 0;
    double since_ms = 0;
  };

 public:
  // A task that was taken, until Finish.
  class Charge {
   public:
    bool is_of(const Tenant* tenant) const { return flow_ != nullptr && flow_->tenant.get() == tenant; }

   private:
    friend class FairQueue;
    Flow* flow_ = nullptr;
    double expected_ms_ = 0;
    double paused_ms_ = 0;
    double since_ms_ = 0;
    int pauses_ = 0;
  };
  struct Taken {
    Item item;
    double expected_ms;
    Charge charge;
  };
  // A task that Pop may take: the first of its tenant.
  struct Next {
    const Item& item;
    const Tenant* tenant;
    double expected_ms;
    double virtual_ms;  // Its tenant's, by which it is next.
  };

  std::size_t size() const { return size_; }
  // Expected of all that wait.
  double waiting_ms() const { return size_ == 0 ? 0 : waiting_ms_; }

  // `account` may be null. `expected_ms` is for AheadMs alone.
  void Push(const AccountRef& account, double expected_ms, Item item, double now) {
    Flow& flow = Activate(account, now);
    flow.waiting.push_back({std::move(item), account, expected_ms, next_number_++});
    Added(flow, account.get(), expected_ms);
  }
  // Puts back what was taken, before the tenant's others; what it has used so far is charged by Finish.
  void PutBack(const Charge& charge, const AccountRef& account, double expected_ms, Item item) {
    Flow& flow = *charge.flow_;
    if (flow.waiting.empty()) active_.push_back(&flow);
    flow.waiting.push_front({std::move(item), account, expected_ms, 0});
    Added(flow, account.get(), expected_ms);
  }

  // Takes the next task; of those that `may` be taken alone.
  std::optional<Taken> Pop(double now) {
    return Pop(now, [](const Next&) { return true; });
  }
  std::optional<Taken> Pop(double now, absl::FunctionRef<bool(const Next&)> may) {
    for (auto* const flows : {&active_, &running_}) {
      for (Flow* const each : *flows) Reweigh(*each, now);
    }
    Flow* const flow = Best(now, may);
    if (flow == nullptr) return std::nullopt;
    level_ms_ = std::max(level_ms_, UsedMs(*flow, now));
    Entry entry = Remove(*flow, flow->waiting.begin());
    if (flow->running++ == 0) running_.push_back(flow);
    Taken taken{std::move(entry.item), entry.expected_ms, {}};
    taken.charge.flow_ = flow;
    taken.charge.pauses_ = 1;
    Resume(taken.charge, now);
    Expect(taken.charge, flow->mean_ms);
    return taken;
  }

  // A task that was taken will take so much in all, as far as is known now. REQUIRES: not finished.
  void Expect(Charge& charge, double ms) {
    charge.flow_->expected_ms += ms - charge.expected_ms_;
    charge.expected_ms_ = ms;
  }
  // Stops its clock until Resume has been called as often: another task has a thread of it. REQUIRES: not finished.
  void Pause(Charge& charge, double now) {
    if (charge.pauses_++ > 0) return;
    Flow& flow = *charge.flow_;
    charge.paused_ms_ += now - charge.since_ms_;
    flow.paused_ms += now - charge.since_ms_;
    flow.since_ms -= charge.since_ms_;
    --flow.going;
  }
  void Resume(Charge& charge, double now) {
    if (--charge.pauses_ > 0) return;
    Flow& flow = *charge.flow_;
    charge.since_ms_ = now;
    flow.since_ms += now;
    ++flow.going;
  }
  // It used so much. `took_ms`: how long that was by the clock, as an example of what its tenant's tasks take; or
  // nothing.
  void Finish(Charge& charge, double used_ms, std::optional<double> took_ms, double now) {
    Flow& flow = *std::exchange(charge.flow_, nullptr);
    Reweigh(flow, now);
    const double before = UsedMs(flow, now);
    flow.virtual_ms += used_ms / flow.weight;
    if (took_ms) flow.mean_ms += kAverageWeight * (*took_ms - flow.mean_ms);
    if (--flow.running == 0) {
      flow.expected_ms = flow.paused_ms = flow.since_ms = 0;  // No rounding stays.
      flow.going = 0;
      running_.erase(std::find(running_.begin(), running_.end(), &flow));
    } else {
      flow.expected_ms -= charge.expected_ms_;
      flow.paused_ms -= charge.paused_ms_;
      if (charge.pauses_ == 0) flow.since_ms -= charge.since_ms_;
      if (charge.pauses_ == 0) --flow.going;
    }
    KeepStart(flow, before, now);
    highest_ms_ = std::max(highest_ms_, UsedMs(flow, now));
    if (active_.empty() && running_.empty()) level_ms_ = std::max(level_ms_, highest_ms_);
  }
  // The virtual time of the tenant of a task that runs, as if all its tasks ended now.
  static double UsedMs(const Charge& charge, double now) { return UsedMs(*charge.flow_, now); }

  // How long until a task that `account` pushed now might interrupt `charge`'s: its tenant uses as much time each
  // millisecond as it has tasks that run. Those that are paused go on in a moment, and count too.
  double UntilTurnMs(const AccountRef& account, const Charge& charge, double now) const {
    const double turn = NextTurnMs(Find(account), now);
    const Flow& flow = *charge.flow_;
    return std::max(0.0, turn - UsedMs(flow, now)) * flow.weight / flow.running;
  }

  // How much of what waits would be taken before a task that `account` pushed now.
  double AheadMs(const AccountRef& account, double now) {
    return AheadOf(Find(account), now, [](const Next&) { return true; });
  }
  // The same where only those are taken that `may` be: infinite when one of the same tenant may not.
  double AheadMs(const AccountRef& account, double now, absl::FunctionRef<bool(const Next&)> may) {
    Flow* const own = Find(account);
    const auto may_be_taken = [&](const Entry& entry) { return may(NextOf(*own, entry, now)); };
    if (own != nullptr && !std::all_of(own->waiting.begin(), own->waiting.end(), may_be_taken)) {
      return std::numeric_limits<double>::infinity();
    }
    return AheadOf(own, now, may);
  }

  // What a task of `account` takes, by its tenant's latest ones.
  double MeanMs(const AccountRef& account) const {
    const Flow* const own = Find(account);
    return own == nullptr ? kFirstMeanMs : own->mean_ms;
  }

  // Whether any task of `account`'s tenant waits.
  bool HasWaiting(const AccountRef& account) const {
    const Flow* const own = Find(account);
    return own != nullptr && !own->waiting.empty();
  }
  // How many tasks of `account` wait.
  std::size_t CountOf(const Account* account) const {
    const auto found = counts_.find(account);
    return found == counts_.end() ? 0 : found->second;
  }
  // Whether TakeFromLargest(share) would take one.
  bool HasLargerThan(std::size_t share) const { return Largest(share) != nullptr; }
  // Removes the newest task of the account that has the most waiting, if those are more than `share`. Accounts that are
  // null or exempt have no share and lose nothing.
  std::optional<Item> TakeFromLargest(std::size_t share) {
    const Account* const largest = Largest(share);
    if (largest == nullptr) return std::nullopt;
    Flow& flow = *flows_.at(largest->tenant.get());
    const auto newest = std::find_if(flow.waiting.rbegin(), flow.waiting.rend(),
                                     [largest](const Entry& entry) { return entry.account.get() == largest; });
    return Remove(flow, std::prev(newest.base())).item;
  }

 private:
  // The weight of the newest task in a tenant's moving average.
  static constexpr double kAverageWeight = 0.1;

  // What a tenant that uses less than its part may use at once before it is the others' turn. Without it, a moment in
  // which the machine stands still while a task of it runs makes its next ones wait for as long again.
  static constexpr double kMostSavedMs = 50;
  // What one tenant can come to owe for its use of polling threads before it queues again. They are not the queue's, so
  // nobody's virtual time goes on meanwhile.
  static constexpr std::chrono::duration<double, std::milli> kMostUnqueued{1000};

  static double RanMs(const Flow& flow, double now) { return flow.paused_ms + flow.going * now - flow.since_ms; }
  static double UsedMs(const Flow& flow, double now) { return flow.virtual_ms + RanMs(flow, now) / flow.weight; }
  // The flow with the least is next.
  static double TurnMs(const Flow& flow, double now) {
    return flow.virtual_ms + std::max(flow.expected_ms, RanMs(flow, now)) / flow.weight;
  }
  // The virtual time at which it is the turn of `own`, which may be null, with one more task.
  double NextTurnMs(const Flow* own, double now) const {
    if (own == nullptr) return StartMs(nullptr, now);
    return own->waiting.empty() ? std::max(TurnMs(*own, now), StartMs(own, now)) : TurnMs(*own, now);
  }
  // Where a flow begins that has nothing waiting, if it is not further: where the last was that was taken, and where
  // the least of all others is that wait or run now, but for what it may save up. `own` may be null.
  double StartMs(const Flow* own, double now) const {
    return LevelMs(own, now) - kMostSavedMs / (own == nullptr ? 1 : own->weight);
  }
  double LevelMs(const Flow* own, double now) const {
    double least = std::numeric_limits<double>::infinity();
    for (const auto* const flows : {&active_, &running_}) {
      for (const Flow* const flow : *flows) {
        // What a flow has saved up and not used does not put others before it.
        const double reached = std::max(UsedMs(*flow, now), flow->start_ms + kMostSavedMs / flow->weight);
        if (flow != own) least = std::min(least, reached);
      }
    }
    return std::isinf(least) ? level_ms_ : std::max(level_ms_, least);
  }

  // At the end of a task, which counted by the clock and by what was expected of it up to then. Others have begun by
  // that: the flow gets nothing back beyond where it would begin itself, and nothing beyond where it began.
  void KeepStart(Flow& flow, double before, double now) const {
    flow.virtual_ms += std::max(0.0, std::min(before, StartMs(&flow, now)) - UsedMs(flow, now));
    flow.virtual_ms += std::max(0.0, flow.start_ms - TurnMs(flow, now));
  }

  // Counts by the weight that the tenant has now. What one weight charged is not to be given back by another, nor to
  // keep a tenant behind for a thousand times as long as it computed.
  void Reweigh(Flow& flow, double now) const {
    const double weight = flow.tenant == nullptr ? 1 : flow.tenant->weight();
    if (weight == flow.weight) return;
    const double level = LevelMs(&flow, now);
    const double ratio = flow.weight / weight;
    // The part that running tasks have used is divided by the new weight wherever it is read.
    flow.virtual_ms = level + (UsedMs(flow, now) - level) * ratio - RanMs(flow, now) / weight;
    flow.start_ms = level + (flow.start_ms - level) * ratio;
    flow.weight = weight;
  }

  // As AheadMs; `own` may be null.
  double AheadOf(Flow* own, double now, absl::FunctionRef<bool(const Next&)> may) const {
    if (own != nullptr) Reweigh(*own, now);  // Also when the task is refused because of it, and never pushed.
    double ahead = own == nullptr ? 0 : own->waiting_ms;
    const double turn = NextTurnMs(own, now) + ahead / (own == nullptr ? 1 : own->weight);
    for (const Flow* const flow : active_) {
      const double others_turn = TurnMs(*flow, now);
      const Entry& first = flow->waiting.front();
      if (flow == own || others_turn > turn || !may(NextOf(*flow, first, now))) continue;
      ahead += std::min(flow->waiting_ms, (turn - others_turn) * flow->weight + first.expected_ms);
    }
    return ahead;
  }

  // Null when nobody of its tenant was there. `account` may be null.
  Flow* Find(const AccountRef& account) const {
    const auto found = flows_.find(account == nullptr ? nullptr : account->tenant.get());
    return found == flows_.end() ? nullptr : found->second.get();
  }
  Flow& Activate(const AccountRef& account, double now) {
    std::unique_ptr<Flow>& flow = flows_[account == nullptr ? nullptr : account->tenant.get()];
    if (flow == nullptr) {
      flow = std::make_unique<Flow>();
      if (account != nullptr) flow->tenant = account->tenant;
    }
    Reweigh(*flow, now);
    if (flow->waiting.empty()) {
      flow->start_ms = StartMs(flow.get(), now);
      flow->virtual_ms += std::max(0.0, flow->start_ms - TurnMs(*flow, now));
      active_.push_back(flow.get());
    }
    if (flow->tenant != nullptr) {
      const std::chrono::duration<double, std::milli> unqueued = flow->tenant->TakeUnqueued();
      flow->virtual_ms += std::min(unqueued, kMostUnqueued).count() / flow->weight;
    }
    return *flow;
  }

  void Added(Flow& flow, const Account* account, double expected_ms) {
    ++size_;
    ++counts_[account];
    flow.waiting_ms += expected_ms;
    waiting_ms_ = size_ == 1 ? expected_ms : waiting_ms_ + expected_ms;
  }

  Entry Remove(Flow& flow, typename std::deque<Entry>::iterator at) {
    Entry entry = std::move(*at);
    flow.waiting.erase(at);
    --size_;
    if (const auto count = counts_.find(entry.account.get()); --count->second == 0) counts_.erase(count);
    // Sums begin anew with an empty queue, so that no rounding stays.
    flow.waiting_ms = flow.waiting.empty() ? 0 : flow.waiting_ms - entry.expected_ms;
    waiting_ms_ -= entry.expected_ms;
    if (flow.waiting.empty()) active_.erase(std::find(active_.begin(), active_.end(), &flow));
    return entry;
  }

  const Account* Largest(std::size_t share) const {
    const Account* largest = nullptr;
    std::size_t most = share;
    for (const auto& [account, count] : counts_) {
      if (account == nullptr || account->exempt || count <= most) continue;
      most = count;
      largest = account;
    }
    return largest;
  }

  static Next NextOf(const Flow& flow, const Entry& entry, double now) {
    return {entry.item, flow.tenant.get(), entry.expected_ms, TurnMs(flow, now)};
  }

  Flow* Best(double now, absl::FunctionRef<bool(const Next&)> may) const {
    const auto rank = [now](const Flow& flow) { return std::pair(TurnMs(flow, now), flow.waiting.front().number); };
    Flow* best = nullptr;
    for (Flow* const flow : active_) {
      if (best != nullptr && rank(*best) < rank(*flow)) continue;
      if (may(NextOf(*flow, flow->waiting.front(), now))) best = flow;
    }
    return best;
  }

  absl::flat_hash_map<const Tenant*, std::unique_ptr<Flow>> flows_;
  absl::flat_hash_map<const Account*, std::size_t> counts_;  // Of the tasks that wait: how many are whose.
  std::vector<Flow*> active_;                                // Those with tasks that wait.
  std::vector<Flow*> running_;                               // Those with tasks that run.
  std::size_t size_ = 0;
  double waiting_ms_ = 0;
  double level_ms_ = 0;    // Where tenants begin: never less than where one was when a task of it was taken.
  double highest_ms_ = 0;  // Where one was at the end of a task.
  std::uint64_t next_number_ = 1;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_FAIR_QUEUE_H_
