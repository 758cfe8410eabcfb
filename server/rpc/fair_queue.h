// Which of the waiting tasks is next: weighted fair queueing between tenants, first in first out within one.
//
// Each tenant has a virtual time: the compute time that it has used, divided by its weight. The next task is one of the
// tenant with the least. A tenant that comes back after a pause starts where the others are: nobody saves up
// (start-time fair queueing, Goyal, Vin and Cheng 1996). A task is charged when it is taken, by what its tenant's tasks
// took lately, then by what it costs once it is decoded, and at its end by what it took. What callers say about their
// tasks is never charged, so that a false hint gains nothing. A tenant that is given another weight owes as much time
// of its own as before.
//
// Thread-compatible and without a clock: times are what its user measured.
#ifndef ATTEND_SERVER_RPC_FAIR_QUEUE_H_
#define ATTEND_SERVER_RPC_FAIR_QUEUE_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/identity/tenant.h"

namespace attend::server {

// `Item` is movable. Everything is linear in the number of tenants that have tasks waiting.
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
    int running = 0;
    double virtual_ms = 0;
    double weight = 1;              // By which virtual_ms counts; its tenant's may be another since.
    double mean_ms = kFirstMeanMs;  // Moving average of what its tasks took.
  };

 public:
  // What a task that was taken is charged, until Finish.
  class Charge {
   public:
    bool is_of(const Tenant* tenant) const { return flow_ != nullptr && flow_->tenant.get() == tenant; }

   private:
    friend class FairQueue;
    Flow* flow_ = nullptr;
    double charged_ms_ = 0;
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
    double virtual_ms;
  };

  std::size_t size() const { return size_; }
  // Expected of all that wait.
  double waiting_ms() const { return size_ == 0 ? 0 : waiting_ms_; }

  // `account` may be null. `expected_ms` is for AheadMs alone.
  void Push(const AccountRef& account, double expected_ms, Item item) {
    Flow& flow = Activate(account);
    flow.waiting.push_back({std::move(item), account, expected_ms, next_number_++});
    Added(flow, expected_ms);
  }
  // Puts back what was taken, before the tenant's others; nothing is charged for it.
  void PutBack(const Charge& charge, const AccountRef& account, double expected_ms, Item item) {
    Flow& flow = *charge.flow_;
    if (flow.waiting.empty()) active_.push_back(&flow);
    flow.waiting.push_front({std::move(item), account, expected_ms, 0});
    Added(flow, expected_ms);
  }

  // Takes the next task; of those that `may` be taken alone.
  std::optional<Taken> Pop() {
    return Pop([](const Next&) { return true; });
  }
  std::optional<Taken> Pop(absl::FunctionRef<bool(const Next&)> may) {
    for (Flow* const each : active_) Reweigh(*each);
    Flow* const flow = Best(may);
    if (flow == nullptr) return std::nullopt;
    now_ms_ = std::max(now_ms_, flow->virtual_ms);
    Entry entry = Remove(*flow, flow->waiting.begin());
    ++flow->running;
    Taken taken{std::move(entry.item), entry.expected_ms, {}};
    taken.charge.flow_ = flow;
    Recharge(taken.charge, flow->mean_ms);
    return taken;
  }

  // A task that was taken costs so much, as far as is known now. REQUIRES: not finished.
  void Recharge(Charge& charge, double ms) {
    Flow& flow = *charge.flow_;
    Reweigh(flow);
    flow.virtual_ms += (ms - charge.charged_ms_) / flow.weight;
    charge.charged_ms_ = ms;
  }
  // It took so much. `counts`: it is an example of what its tenant's tasks take.
  void Finish(Charge& charge, double ms, bool counts) {
    Recharge(charge, ms);
    --charge.flow_->running;
    if (counts) charge.flow_->mean_ms += kAverageWeight * (ms - charge.flow_->mean_ms);
    charge.flow_ = nullptr;
  }
  // The virtual time of the tenant of a task that has run for `ran_ms`, as if it ended now.
  static double VirtualMs(const Charge& charge, double ran_ms) {
    const Flow& flow = *charge.flow_;
    return flow.virtual_ms + (ran_ms - charge.charged_ms_) / flow.weight;
  }

  // How much of what waits would be taken before a task that `account` pushed now.
  double AheadMs(const AccountRef& account) {
    const auto found = flows_.find(account == nullptr ? nullptr : account->tenant.get());
    Flow* const own = found == flows_.end() ? nullptr : found->second.get();
    if (own != nullptr) Reweigh(*own);  // Also when the task is refused because of it, and never pushed.
    double ahead = own == nullptr ? 0 : own->waiting_ms;
    double turn = now_ms_;  // The virtual time at which it is this task's turn.
    if (own != nullptr) turn = IsIdle(*own) ? std::max(own->virtual_ms, now_ms_) : own->virtual_ms;
    turn += ahead / (own == nullptr ? 1 : own->weight);
    for (const Flow* const flow : active_) {
      if (flow == own || flow->virtual_ms > turn) continue;
      const double before = (turn - flow->virtual_ms) * flow->weight + flow->waiting.front().expected_ms;
      ahead += std::min(flow->waiting_ms, before);
    }
    return ahead;
  }

  // What a task of `account` takes, by its tenant's latest ones.
  double MeanMs(const AccountRef& account) const {
    const auto found = flows_.find(account == nullptr ? nullptr : account->tenant.get());
    return found == flows_.end() ? kFirstMeanMs : found->second->mean_ms;
  }

  // How many tasks of `account` wait.
  std::size_t CountOf(const Account* account) const {
    std::size_t count = 0;
    for (const Flow* const flow : active_) {
      for (const Entry& entry : flow->waiting) count += entry.account.get() == account ? 1 : 0;
    }
    return count;
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

  static bool IsIdle(const Flow& flow) { return flow.waiting.empty() && flow.running == 0; }

  // Counts by the weight that the tenant has now. What one weight charged is not to be given back by another, nor to
  // keep a tenant behind for a thousand times as long as it computed.
  void Reweigh(Flow& flow) const {
    const double weight = flow.tenant == nullptr ? 1 : flow.tenant->weight();
    if (weight == flow.weight) return;
    flow.virtual_ms = now_ms_ + (flow.virtual_ms - now_ms_) * (flow.weight / weight);
    flow.weight = weight;
  }

  Flow& Activate(const AccountRef& account) {
    std::unique_ptr<Flow>& flow = flows_[account == nullptr ? nullptr : account->tenant.get()];
    if (flow == nullptr) {
      flow = std::make_unique<Flow>();
      if (account != nullptr) flow->tenant = account->tenant;
    }
    Reweigh(*flow);
    if (IsIdle(*flow)) flow->virtual_ms = std::max(flow->virtual_ms, now_ms_);
    if (flow->tenant != nullptr) {
      const std::chrono::duration<double, std::milli> unqueued = flow->tenant->TakeUnqueued();
      flow->virtual_ms += unqueued.count() / flow->weight;
    }
    if (flow->waiting.empty()) active_.push_back(flow.get());
    return *flow;
  }

  void Added(Flow& flow, double expected_ms) {
    ++size_;
    flow.waiting_ms += expected_ms;
    waiting_ms_ = size_ == 1 ? expected_ms : waiting_ms_ + expected_ms;
  }

  Entry Remove(Flow& flow, typename std::deque<Entry>::iterator at) {
    Entry entry = std::move(*at);
    flow.waiting.erase(at);
    --size_;
    // Sums begin anew with an empty queue, so that no rounding stays.
    flow.waiting_ms = flow.waiting.empty() ? 0 : flow.waiting_ms - entry.expected_ms;
    waiting_ms_ -= entry.expected_ms;
    if (flow.waiting.empty()) active_.erase(std::find(active_.begin(), active_.end(), &flow));
    return entry;
  }

  const Account* Largest(std::size_t share) const {
    absl::flat_hash_map<const Account*, std::size_t> counts;
    const Account* largest = nullptr;
    std::size_t most = share;
    for (const Flow* const flow : active_) {
      for (const Entry& entry : flow->waiting) {
        if (entry.account == nullptr || entry.account->exempt) continue;
        const std::size_t count = ++counts[entry.account.get()];
        if (count <= most) continue;
        most = count;
        largest = entry.account.get();
      }
    }
    return largest;
  }

  Flow* Best(absl::FunctionRef<bool(const Next&)> may) const {
    const auto rank = [](const Flow& flow) { return std::pair(flow.virtual_ms, flow.waiting.front().number); };
    Flow* best = nullptr;
    for (Flow* const flow : active_) {
      const Entry& first = flow->waiting.front();
      if (best != nullptr && rank(*best) < rank(*flow)) continue;
      if (may({first.item, flow->tenant.get(), first.expected_ms, flow->virtual_ms})) best = flow;
    }
    return best;
  }

  absl::flat_hash_map<const Tenant*, std::unique_ptr<Flow>> flows_;
  std::vector<Flow*> active_;  // Those with tasks that wait.
  std::size_t size_ = 0;
  double waiting_ms_ = 0;
  double now_ms_ = 0;  // The virtual time at which the latest task was taken.
  std::uint64_t next_number_ = 1;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_FAIR_QUEUE_H_
