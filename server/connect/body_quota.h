// The memory that bodies may take while they are read.
#ifndef ATTEND_SERVER_CONNECT_BODY_QUOTA_H_
#define ATTEND_SERVER_CONNECT_BODY_QUOTA_H_

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "server/identity/tenant.h"
#include "server/rpc/shares.h"

namespace attend::server {

// A part of the memory budget, so that who sends slowly does not keep out those who have sent all. One caller may have
// all of the part; for some seconds after another, with less than a quarter of it, was refused, no more than that. A
// body that is alone may take more than the part.
//
// Thread-compatible.
class BodyQuota {
 public:
  using Clock = RefusedLately::Clock;

  // Whether a body of `caller` may take `wanted` bytes, which are more than the `held` that it takes; all bodies may
  // take `most`. `caller`: null where nobody is told apart. Errors: UNAVAILABLE with reason MEMORY_BUDGET and a retry
  // delay.
  absl::Status CheckRoom(const Account* caller, std::int64_t held, double wanted, std::int64_t most,
                         Clock::time_point now);
  // A body of `caller` takes `more` bytes from now on; fewer when it is negative.
  void Add(const Account* caller, std::int64_t more);

 private:
  std::int64_t HeldBy(const Account* caller) const;

  std::int64_t held_ = 0;
  absl::flat_hash_map<const Account*, std::int64_t> by_caller_;  // Of those who hold some.
  RefusedLately refused_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_BODY_QUOTA_H_
