#include "server/rpc/unary_call.h"

#include <memory>
#include <optional>
#include <utility>

#include "server/rpc/cost_hint.h"

namespace attend::server {
namespace {

class UnaryCall final : public CallHandler, public RequestRun::Owner {
 public:
  UnaryCall(const RequestServices& services, const RequestMethod& method) : services_(services), method_(method) {}

  void OnStart(Call& call) override;
  void OnRead(Call& call, grpc::ByteBuffer* message) override;
  void OnResponse(const grpc::ByteBuffer& response) override { call_->FinishWithResponse(response); }
  void OnError(const absl::Status& status) override { call_->Finish(status); }

 private:
  absl::Status Admit(const Call& call) const;

  const RequestServices& services_;
  const RequestMethod& method_;
  Call* call_ = nullptr;  // Owns this.
  std::optional<double> hinted_flops_;
  // Destroyed when the call, and with it this handler, is deleted: then nothing of it is left to send.
  std::optional<RequestRun> run_;
};

void UnaryCall::OnStart(Call& call) {
  call_ = &call;
  if (method_.refusable) {
    hinted_flops_ = CostHint(call.context());
    // The decoder refuses that too, and can say why.
    if (hinted_flops_ > services_.limits.max_request_flops) hinted_flops_.reset();
    if (absl::Status admitted = Admit(call); !admitted.ok()) return call.Finish(admitted);
  }
  call.Read();
}

absl::Status UnaryCall::Admit(const Call& call) const {
  // What runs on the polling thread waits for nobody. If it was no small job after all, Submit says so.
  if (hinted_flops_ && *hinted_flops_ <= services_.inline_flops) return absl::OkStatus();
  Admission::Request asked{.deadline = call.context().deadline()};
  if (hinted_flops_) asked.cost = {.flops = *hinted_flops_};
  return services_.admission->Check(asked);
}

void UnaryCall::OnRead(Call& call, grpc::ByteBuffer* message) {
  call.timing().receive = Clock::now() - call.arrival();
  if (message == nullptr) {
    return call.Finish(call.cancelled()
                           ? call.CancelledStatus()
                           : absl::UnimplementedError("the call ended without the one request message it must have"));
  }
  run_.emplace(services_, method_, call, *this, call.timing());
  run_->Start(*message, call.context().deadline(), hinted_flops_);
}

}  // namespace

Method MakeUnaryMethod(const RequestServices& services, RequestMethod method) {
  // One copy of the method, shared by its calls, rather than one of its decoder for each call.
  auto shared = std::make_shared<const RequestMethod>(std::move(method));
  return {.make_handler = [&services, shared] { return std::make_unique<UnaryCall>(services, *shared); }};
}

}  // namespace attend::server
