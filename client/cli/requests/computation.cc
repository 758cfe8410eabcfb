#include "client/cli/requests/computation.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attend::client {
namespace {

// Appends the tensor in `message`, or nothing when that is null.
absl::Status Take(const char* name, v1::Tensor* message, std::vector<NamedTensor>* tensors) {
  if (message == nullptr) return absl::OkStatus();
  absl::StatusOr<Tensor> tensor = Tensor::FromProto(std::move(*message));
  if (!tensor.ok()) return absl::InternalError(absl::StrCat("the server's ", name, ": ", tensor.status().message()));
  tensors->push_back({name, *std::move(tensor)});
  return absl::OkStatus();
}

// The tensors that both responses can hold.
template <typename Response>
absl::Status TakeCommon(Response* response, std::vector<NamedTensor>* tensors) {
  absl::Status status = Take("output", response->has_output() ? response->mutable_output() : nullptr, tensors);
  status.Update(Take("attention_weights",
                     response->has_attention_weights() ? response->mutable_attention_weights() : nullptr, tensors));
  status.Update(Take("log_sum_exp", response->has_log_sum_exp() ? response->mutable_log_sum_exp() : nullptr, tensors));
  status.Update(Take("scores", response->has_scores() ? response->mutable_scores() : nullptr, tensors));
  status.Update(Take("top_attention_weights",
                     response->has_top_attention_weights() ? response->mutable_top_attention_weights() : nullptr,
                     tensors));
  status.Update(Take("top_attention_indices",
                     response->has_top_attention_indices() ? response->mutable_top_attention_indices() : nullptr,
                     tensors));
  return status;
}

absl::Status TakeAll(v1::ScaledDotProductAttentionResponse* response, std::vector<NamedTensor>* tensors) {
  return TakeCommon(response, tensors);
}

absl::Status TakeAll(v1::AttendResponse* response, std::vector<NamedTensor>* tensors) {
  absl::Status status = TakeCommon(response, tensors);
  status.Update(Take("query", response->has_query() ? response->mutable_query() : nullptr, tensors));
  status.Update(Take("key", response->has_key() ? response->mutable_key() : nullptr, tensors));
  status.Update(Take("value", response->has_value() ? response->mutable_value() : nullptr, tensors));
  return status;
}

template <typename Response>
absl::StatusOr<Outcome> ToOutcome(absl::StatusOr<Answer<Response>> answer) {
  if (!answer.ok()) return answer.status();
  Outcome outcome{{}, std::move(answer->server_timing), answer->round_trip, std::move(answer->peer)};
  if (absl::Status status = TakeAll(&answer->response, &outcome.tensors); !status.ok()) return status;
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
