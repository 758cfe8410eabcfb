// Calls the server named on the command line: embeddings of ones attend to themselves and come out as they went in.
#include <iostream>
#include <vector>

#include "absl/time/time.h"
#include "client/lib/client.h"
#include "client/lib/server_error.h"
#include "client/lib/tensor.h"

namespace {

namespace v1 = attend::v1;
using attend::client::Answer;
using attend::client::CallOptions;
using attend::client::Client;
using attend::client::Tensor;

absl::Status Run(const char* endpoint) {
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {endpoint}});
  if (!client.ok()) return client.status();
  v1::AttendRequest request;
  const std::vector<float> ones(6, 1.0F);
  absl::Status placed = Tensor::FromFloats({2, 3}, ones).MoveTo(request.mutable_embeddings());
  if (!placed.ok()) return placed;
  absl::StatusOr<Answer<v1::AttendResponse>> answer = client->Attend(request, CallOptions(absl::Seconds(60)));
  if (!answer.ok()) return answer.status();
  const absl::StatusOr<Tensor> output = Tensor::FromProto(std::move(*answer->response.mutable_output()));
  if (!output.ok()) return output.status();
  std::cout << "output " << output->Describe() << " of " << output->floats()[0] << "\n";
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Run(argc > 1 ? argv[1] : "127.0.0.1:1");
  if (status.ok()) return 0;
  std::cerr << status << "\n"
            << "reason: " << attend::client::GetServerError(status).reason << "\n";
  return 1;
}
