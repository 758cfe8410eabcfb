// A fair queue whose times are given, for its tests.
#ifndef ATTEND_TESTS_SERVER_FAIR_QUEUE_CASE_H_
#define ATTEND_TESTS_SERVER_FAIR_QUEUE_CASE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "server/identity/tenant.h"
#include "server/rpc/fair_queue.h"

namespace attend::server {

// With the time as this test has it.
class Queue : public FairQueue<std::string> {
 public:
  using Base = FairQueue<std::string>;

  void Push(const AccountRef& account, double expected_ms, const std::string& item) {
    Base::Push(account, expected_ms, item, now_);
  }
  std::optional<Taken> Pop() { return Base::Pop(now_); }
  std::optional<Taken> Pop(absl::FunctionRef<bool(const Next&)> may) { return Base::Pop(now_, may); }
  void Pause(Charge& charge) { Base::Pause(charge, now_); }
  void Resume(Charge& charge) { Base::Resume(charge, now_); }
  double UsedMs(const Charge& charge) const { return Base::UsedMs(charge, now_); }
  double UntilTurnMs(const AccountRef& account, const Charge& charge) const {
    return Base::UntilTurnMs(account, charge, now_);
  }
  void Finish(Charge& charge, double ms, bool counts) {
    Base::Finish(charge, ms, counts ? std::optional(ms) : std::nullopt, now_);
  }
  double AheadMs(const AccountRef& account) { return Base::AheadMs(account, now_); }
  double AheadMs(const AccountRef& account, absl::FunctionRef<bool(const Next&)> may) {
    return Base::AheadMs(account, now_, may);
  }
  void Wait(double ms) { now_ += ms; }

 private:
  double now_ = 1e6;  // Since the machine started.
};

inline AccountRef MakeAccount(const std::string& name, double weight = 1, bool exempt = false) {
  const auto tenant = std::make_shared<Tenant>(name);
  tenant->SetLimits({.weight = weight});
  return std::make_shared<Account>(name, tenant, exempt);
}

// Takes and ends `count` tasks, each of which takes what `ms` says of its name's first letter.
inline std::string Serve(Queue& queue, int count, const std::map<char, double>& ms) {
  std::string order;
  for (int i = 0; i < count; ++i) {
    auto taken = queue.Pop();
    if (!taken.has_value()) break;
    order += taken->item;
    queue.Wait(ms.at(taken->item[0]));
    queue.Finish(taken->charge, ms.at(taken->item[0]), /*counts=*/true);
  }
  return order;
}

inline void Push(Queue& queue, const AccountRef& account, int count, double expected_ms = 1) {
  for (int i = 0; i < count; ++i) queue.Push(account, expected_ms, account->name);
}

}  // namespace attend::server

#endif  // ATTEND_TESTS_SERVER_FAIR_QUEUE_CASE_H_
