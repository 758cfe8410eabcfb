#include "server/services/health_service.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/services/control_method.h"

namespace attend::server {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr char kLiveness[] = "liveness";
constexpr char kReadiness[] = "readiness";

absl::StatusOr<HealthCheckResponse> Check(const ServingState& health, const HealthCheckRequest& request) {
  const ServingState::Status status = health.Get(request.service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    return WithDetails(absl::NotFoundError(absl::StrCat("this server has no service named '", request.service(), "'")),
                       {.reason = reason::kServiceUnknown, .field = "service", .metadata = {}});
  }
  HealthCheckResponse response;
  response.set_status(status);
  return response;
}

// One Watch: sends the status at once and then whenever it has changed; writes at most one message at a time.
class WatchCall final : public CallHandler {
 public:
  explicit WatchCall(ServingState& health) : health_(health) {}

  void OnStart(Call& call) override { call.Read(); }

  void OnRead(Call& call, grpc::ByteBuffer* message) override {
    // A message may come behind the end of its call, where nobody would remove the watcher any more.
    if (call.finished() || call.cancelled()) return;
    if (message == nullptr) return call.Finish(call.MissingRequestStatus());
    HealthCheckRequest request;
    if (absl::Status parsed = ParseControlMessage(*message, request); !parsed.ok()) return call.Finish(parsed);
    service_ = request.service();
    health_.AddWatcher(call);
    SendIfChanged(call);
  }

  void OnWritten(Call& call, bool ok) override {
    writing_ = false;
    if (ok) SendIfChanged(call);
  }

  void OnWake(Call& call) override { SendIfChanged(call); }

  void OnCancelled(Call& call) override {
    health_.RemoveWatcher(call);
    call.Finish(call.CancelledStatus());
  }

  void OnGivenUp(Call& call, const absl::Status& status) override {
    health_.RemoveWatcher(call);
    CallHandler::OnGivenUp(call, status);
  }

  void OnDrain(Call& call) override {
    health_.RemoveWatcher(call);
    SendIfChanged(call);  // The last wake may have come together with this one.
    CallHandler::OnDrain(call);
  }

 private:
  void SendIfChanged(Call& call) {
    if (writing_ || call.finished()) return;
    const ServingState::Status status = health_.Get(service_);
    if (status == last_sent_) return;
    last_sent_ = status;
    writing_ = true;
    HealthCheckResponse response;
    response.set_status(status);
    call.Write(SerializeControlMessage(response));
  }

  ServingState& health_;
  std::string service_;
  std::optional<ServingState::Status> last_sent_;
  bool writing_ = false;
};

}  // namespace

ServingState::ServingState(const std::vector<std::string>& services) {
  const MutexLock lock(mu_);
  for (const std::string& service : services) statuses_[service] = HealthCheckResponse::SERVING;
  for (const char* name : {"", kLiveness, kReadiness}) statuses_[name] = HealthCheckResponse::SERVING;
}

ServingState::Status ServingState::Get(std::string_view service) const {
  const MutexLock lock(mu_);
  const auto found = statuses_.find(std::string(service));
  return found == statuses_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : found->second;
}

bool ServingState::IsReady() const { return Get(kReadiness) == HealthCheckResponse::SERVING; }

void ServingState::Drain() {
  const MutexLock lock(mu_);
  for (auto& [name, status] : statuses_) {
    if (name != kLiveness) status = HealthCheckResponse::NOT_SERVING;
  }
  for (auto& [call, ref] : watchers_) call->Wake();
}

void ServingState::AddWatcher(Call& call) {
  const MutexLock lock(mu_);
  watchers_.emplace(&call, CallRef(call));
}

void ServingState::RemoveWatcher(Call& call) {
  const MutexLock lock(mu_);
  watchers_.erase(&call);
}

void AddHealthService(ServingState& health, const RequestServices& services, MethodTable& methods) {
  const Roles anybody;
  methods.Add("/grpc.health.v1.Health/Check",
              MakeUnaryMethod(services, ControlMethod<HealthCheckRequest>([&health](const HealthCheckRequest& request) {
                                return Check(health, request);
                              })),
              anybody);
  methods.Add(
      "/grpc.health.v1.Health/Watch",
      {.make_handler = [&health] { return std::make_unique<WatchCall>(health); }, .is_stream = true, .gives_way = true},
      anybody);
}

}  // namespace attend::server
