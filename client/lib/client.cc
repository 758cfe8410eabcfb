#include "client/lib/client.h"

#include <grpcpp/client_context.h>

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "attend/v1/attention_service.grpc.pb.h"
#include "client/lib/attend_stream.h"
#include "client/lib/call.h"
#include "client/lib/channel.h"
#include "client/lib/cost_hint.h"
#include "client/lib/server_version.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace attend::client {
namespace {

using internal::Call;
using internal::CheckSize;
using internal::CheckTimeout;
using internal::Prepare;
using internal::ToStatus;

template <typename Request>
void AddCostHint(const Request& request, grpc::ClientContext* context) {
  if (const std::optional<std::string> hint = CostHint(request)) context->AddMetadata(kCostHintKey, *hint);
}

// `result`, unless the server ignored a part of the request: one of 0.2 or newer gives a receipt.
template <typename Request, typename Response>
absl::StatusOr<CallResult<Response>> CheckUnderstood(v1::AttentionService::Stub& stub, const Request& request,
                                                     absl::Time deadline, absl::StatusOr<CallResult<Response>> result) {
  if (result.ok() && result->response.has_receipt()) return result;
  const std::string field = internal::FieldUnknownTo01(request);
  if (field.empty()) return result;
  return internal::WithoutReceipt(stub, deadline, field, result.status());
}

HealthState FromProto(grpc::health::v1::HealthCheckResponse::ServingStatus status) {
  switch (status) {
    case grpc::health::v1::HealthCheckResponse::SERVING: return HealthState::kServing;
    case grpc::health::v1::HealthCheckResponse::NOT_SERVING: return HealthState::kNotServing;
    case grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN: return HealthState::kServiceUnknown;
    default: return HealthState::kUnknown;
  }
}

}  // namespace

void DescribeOnly(google::protobuf::Message* message) {
  if (message->GetDescriptor() == v1::Tensor::descriptor()) {
    auto& tensor = dynamic_cast<v1::Tensor&>(*message);
    tensor.clear_data();
    tensor.clear_values();
    return;
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  message->GetReflection()->ListFields(*message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) continue;
    DescribeOnly(message->GetReflection()->MutableMessage(message, field));
  }
}

struct Client::Stubs {
  explicit Stubs(const Channels& c) : channels(c), attention(c.calls), health(c.health) {}

  Channels channels;
  v1::AttentionService::Stub attention;
  grpc::health::v1::Health::Stub health;
};

Client::Client(std::unique_ptr<Stubs> stubs) : stubs_(std::move(stubs)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

absl::StatusOr<Client> Client::Connect(const ClientOptions& options) {
  const absl::StatusOr<Channels> channels = MakeChannels(options);
  if (!channels.ok()) return channels.status();
  return Client(std::make_unique<Stubs>(*channels));
}

const Channels& Client::channels() const { return stubs_->channels; }

absl::Status Client::WaitUntilConnected(const CallOptions& options) const {
  if (absl::Status status = CheckTimeout(options); !status.ok()) return status;
  if (stubs_->channels.calls->WaitForConnected(absl::ToChronoTime(absl::Now() + options.timeout)))
    return absl::OkStatus();
  return absl::DeadlineExceededError("no endpoint was reached in time");
}

absl::StatusOr<CallResult<v1::AttendResponse>> Client::Attend(const v1::AttendRequest& request,
                                                              const CallOptions& options) const {
  if (absl::Status status = CheckSize(request, stubs_->channels.max_message_bytes); !status.ok()) return status;
  using Response = v1::AttendResponse;
  const auto call = [&](grpc::ClientContext* context, Response* response) {
    AddCostHint(request, context);
    return stubs_->attention.Attend(context, request, response);
  };
  const absl::Time deadline = absl::Now() + options.timeout;  // Of the call and all that follows it.
  return CheckUnderstood(stubs_->attention, request, deadline, Call<Response>(options, call));
}

absl::StatusOr<CallResult<v1::ScaledDotProductAttentionResponse>> Client::ScaledDotProductAttention(
    const v1::ScaledDotProductAttentionRequest& request, const CallOptions& options) const {
  if (absl::Status status = CheckSize(request, stubs_->channels.max_message_bytes); !status.ok()) return status;
  using Response = v1::ScaledDotProductAttentionResponse;
  const auto call = [&](grpc::ClientContext* context, Response* response) {
    AddCostHint(request, context);
    return stubs_->attention.ScaledDotProductAttention(context, request, response);
  };
  const absl::Time deadline = absl::Now() + options.timeout;
  return CheckUnderstood(stubs_->attention, request, deadline, Call<Response>(options, call));
}

absl::StatusOr<std::unique_ptr<AttendStream>> Client::StreamAttend(const CallOptions& options) const {
  if (absl::Status status = CheckTimeout(options); !status.ok()) return status;
  auto rpc = std::make_unique<AttendStream::Rpc>();
  Prepare(options, &rpc->context);
  rpc->stub = &stubs_->attention;
  rpc->max_message_bytes = stubs_->channels.max_message_bytes;
  rpc->stream = stubs_->attention.StreamAttend(&rpc->context);
  return std::unique_ptr<AttendStream>(new AttendStream(std::move(rpc)));
}

absl::StatusOr<CallResult<v1::EstimateCostResponse>> Client::EstimateCost(const v1::EstimateCostRequest& request,
                                                                          const CallOptions& options) const {
  if (absl::Status status = CheckSize(request, stubs_->channels.max_message_bytes); !status.ok()) return status;
  using Response = v1::EstimateCostResponse;
  const absl::Time deadline = absl::Now() + options.timeout;
  absl::StatusOr<CallResult<Response>> result =
      Call<Response>(options, [&](grpc::ClientContext* context, Response* response) {
        return stubs_->attention.EstimateCost(context, request, response);
      });
  if (!absl::IsUnimplemented(result.status())) return result;
  return internal::UnknownField(stubs_->attention, deadline, "EstimateCost", "ask a newer server");
}

absl::StatusOr<CallResult<v1::GetServerInfoResponse>> Client::GetServerInfo(const CallOptions& options) const {
  using Response = v1::GetServerInfoResponse;
  return Call<Response>(options, [&](grpc::ClientContext* context, Response* response) {
    return stubs_->attention.GetServerInfo(context, v1::GetServerInfoRequest(), response);
  });
}

absl::StatusOr<HealthState> Client::CheckHealth(const std::string& service, const CallOptions& options) const {
  using Response = grpc::health::v1::HealthCheckResponse;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  if (absl::Status status = CheckSize(request, stubs_->channels.max_message_bytes); !status.ok()) return status;
  const absl::StatusOr<CallResult<Response>> result =
      Call<Response>(options, [&](grpc::ClientContext* context, Response* response) {
        return stubs_->health.Check(context, request, response);
      });
  if (!result.ok()) return result.status();
  return FromProto(result->response.status());
}

absl::Status Client::WatchHealth(const std::string& service, const CallOptions& options,
                                 absl::FunctionRef<bool(HealthState)> on_state) const {
  if (options.timeout <= absl::ZeroDuration()) return CheckTimeout(options);
  grpc::ClientContext context;
  Prepare(options, &context);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  if (absl::Status status = CheckSize(request, stubs_->channels.max_message_bytes); !status.ok()) return status;
  const auto reader = stubs_->health.Watch(&context, request);
  grpc::health::v1::HealthCheckResponse response;
  bool wanted = true;
  while (wanted && reader->Read(&response)) wanted = on_state(FromProto(response.status()));
  if (!wanted) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return wanted ? ToStatus(status, context) : absl::OkStatus();
}

}  // namespace attend::client
