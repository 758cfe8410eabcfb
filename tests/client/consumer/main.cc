// Calls the server named on the command line: embeddings of ones attend to themselves and come out as they went in, and
// a layer is made, found in the list and deleted.
#include <iostream>
#include <vector>

#include "absl/time/time.h"
#include "client/lib/client.h"
#include "client/lib/layer_client.h"
#include "client/lib/server_error.h"
#include "client/lib/tensor.h"

namespace {

namespace v1 = attend::v1;
using attend::client::CallOptions;
using attend::client::CallResult;
using attend::client::Client;
using attend::client::LayerClient;
using attend::client::Tensor;

const CallOptions kCall(absl::Seconds(60));

absl::Status Attend(const Client& client) {
  v1::AttendRequest request;
  const std::vector<float> ones(6, 1.0F);
  absl::Status placed = Tensor::FromFloats({2, 3}, ones).MoveTo(request.mutable_embeddings());
  if (!placed.ok()) return placed;
  absl::StatusOr<CallResult<v1::AttendResponse>> answer = client.Attend(request, kCall);
  if (!answer.ok()) return answer.status();
  const absl::StatusOr<Tensor> output = Tensor::FromProto(std::move(*answer->response.mutable_output()));
  if (!output.ok()) return output.status();
  std::cout << "output " << output->Describe() << " of " << output->floats()[0] << "\n";
  return absl::OkStatus();
}

absl::Status KeepALayer(const LayerClient& layers) {
  v1::CreateLayerHeader header;
  header.set_name("consumer");
  header.mutable_init()->set_embed_dim(3);
  if (const auto created = layers.CreateSeeded(header, kCall); !created.ok()) return created.status();
  for (const absl::StatusOr<v1::ListLayersResponse>& page : layers.Pages({}, kCall)) {
    if (!page.ok()) return page.status();
    for (const v1::Layer& layer : page->layers()) std::cout << "layer " << layer.name() << "\n";
  }
  v1::DeleteLayerRequest request;
  request.set_name("consumer");
  return layers.Delete(request, kCall).status();
}

absl::Status Run(const char* endpoint) {
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {endpoint}});
  if (!client.ok()) return client.status();
  absl::Status status = Attend(*client);
  if (status.ok()) status = KeepALayer(LayerClient(*client));
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Run(argc > 1 ? argv[1] : "127.0.0.1:1");
  if (status.ok()) return 0;
  std::cerr << status << "\n"
            << "reason: " << attend::client::GetServerError(status).reason << "\n";
  return 1;
}
