#include "client/cli/requests/computation.h"

#include <google/protobuf/message.h>

#include "absl/strings/str_cat.h"

namespace attend::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The fields that are set.
std::vector<const FieldDescriptor*> FieldsOf(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields;
}

// Takes the tensors out of `response`, and the strings of its other messages.
absl::Status TakeAll(Message* response, Outcome* outcome) {
  for (const FieldDescriptor* field : FieldsOf(*response)) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) continue;
    Message* const message = response->GetReflection()->MutableMessage(response, field);
    if (field->message_type() == v1::Tensor::descriptor()) {
      absl::StatusOr<Tensor> tensor = Tensor::FromProto(std::move(*static_cast<v1::Tensor*>(message)));
      if (!tensor.ok()) {
        return absl::InternalError(absl::StrCat("the server's ", field->name(), ": ", tensor.status().message()));
      }
      outcome->tensors.push_back({field->name(), *std::move(tensor)});
      continue;
    }
    for (const FieldDescriptor* part : FieldsOf(*message)) {
      if (part->cpp_type() != FieldDescriptor::CPPTYPE_STRING || part->is_repeated()) continue;
      outcome->receipt.emplace_back(part->name(), message->GetReflection()->GetString(*message, part));
    }
  }
  return absl::OkStatus();
}

template <typename Response>
absl::StatusOr<Outcome> ToOutcome(absl::StatusOr<CallResult<Response>> answer) {
  if (!answer.ok()) return answer.status();
  Outcome outcome{{}, {}, std::move(answer->server_timing), answer->round_trip, std::move(answer->peer)};
  if (absl::Status status = TakeAll(&answer->response, &outcome); !status.ok()) return status;
  return outcome;
}

}  // namespace

absl::StatusOr<Outcome> Send(const Client& client, const ComputationRequest& request, const CallOptions& options) {
  if (const auto* attend = std::get_if<v1::AttendRequest>(&request)) return ToOutcome(client.Attend(*attend, options));
  return ToOutcome(client.ScaledDotProductAttention(std::get<v1::ScaledDotProductAttentionRequest>(request), options));
}

const Tensor* Find(const std::vector<NamedTensor>& tensors, const std::string& name) {
  for (const NamedTensor& entry : tensors) {
    if (entry.name == name) return &entry.tensor;
  }
  return nullptr;
}

}  // namespace attend::client
