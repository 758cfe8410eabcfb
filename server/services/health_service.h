// grpc.health.v1.Health: Check and Watch, as in
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
//
// Names served: "" (the whole server), each service's full name, and, as Kubernetes probes like to ask, `readiness`
// (may it get new calls?) and `liveness` (is it worth keeping?). When the server drains, all but `liveness` go to
// NOT_SERVING: a draining server must get no calls, and must not be killed for that.
#ifndef ATTEND_SERVER_SERVICES_HEALTH_SERVICE_H_
#define ATTEND_SERVER_SERVICES_HEALTH_SERVICE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "core/base/mutex.h"
#include "grpc/health/v1/health.pb.h"
#include "server/rpc/call.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// The status of each service and who watches it. Thread-safe. Outlives every call.
class ServingState {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // Everything is SERVING. `services` are full names; "", `liveness` and `readiness` come in addition.
  explicit ServingState(const std::vector<std::string>& services);

  // SERVICE_UNKNOWN for a name that is not served.
  Status Get(std::string_view service) const ABSL_LOCKS_EXCLUDED(mu_);

  // Whether new calls are wanted: the status of `readiness`.
  bool IsReady() const ABSL_LOCKS_EXCLUDED(mu_);

  // Everything but `liveness` becomes NOT_SERVING, for good. Watchers are woken.
  void Drain() ABSL_LOCKS_EXCLUDED(mu_);

  // `call` is woken at each change until it is removed.
  void AddWatcher(Call& call) ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveWatcher(Call& call) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable Mutex mu_;
  absl::flat_hash_map<std::string, Status> statuses_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Call*, CallRef> watchers_ ABSL_GUARDED_BY(mu_);
};

// Adds Check (an unknown name: NOT_FOUND) and Watch (an unknown name: SERVICE_UNKNOWN, and the stream stays open).
// `health` and `services` must outlive every call.
void AddHealthService(ServingState& health, const RequestServices& services, MethodTable& methods);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_HEALTH_SERVICE_H_
