// attend-stream: uploads a file as attend.v1.CreateLayer does, to a server that takes it or to one that discards it,
// and prints one line of JSON: {"seconds": .., "code": .., "message": ..}.
//
//   attend-stream --target 127.0.0.1:50051 --file layer.safetensors --name bench [--chunk-bytes 1048576]
//
// The messages are made before the clock starts, so that it is the servers and the transport that are measured.

#include <absl/synchronization/mutex.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attend/v1/layer_service.pb.h"
#include "client/lib/connect_errno.h"

namespace {

grpc::ByteBuffer Serialize(const attend::v1::CreateLayerRequest& request) {
  const grpc::Slice slice(request.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

std::vector<grpc::ByteBuffer> MakeMessages(const std::string& name, const std::string& file, std::size_t chunk_bytes) {
  std::vector<grpc::ByteBuffer> messages;
  attend::v1::CreateLayerRequest request;
  request.mutable_header()->set_name(name);
  request.mutable_header()->set_replace(true);
  messages.push_back(Serialize(request));
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
  for (std::size_t at = 0; at < bytes.size(); at += chunk_bytes) {
    request.set_chunk(bytes.substr(at, chunk_bytes));
    messages.push_back(Serialize(request));
  }
  return messages;
}

// Waits for the one operation under way.
bool Next(grpc::CompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

grpc::Status Upload(const std::string& target, const std::vector<grpc::ByteBuffer>& messages) {
  attend::client::internal::ReadProcessorFacts();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  grpc::GenericStub stub(grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/attend.v1.LayerService/CreateLayer", &queue);
  call->StartCall(nullptr);
  bool ok = Next(queue);
  for (std::size_t i = 0; ok && i < messages.size(); ++i) {
    call->Write(messages[i], nullptr);
    ok = Next(queue);
  }
  if (ok) {
    call->WritesDone(nullptr);
    Next(queue);
    grpc::ByteBuffer response;
    call->Read(&response, nullptr);
    Next(queue);
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  Next(queue);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  CLI::App app("Uploads a layer and says how long it took");
  std::string target, file, name = "bench";
  std::size_t chunk_bytes = 1 << 20;
  app.add_option("--target", target, "host:port")->required();
  app.add_option("--file", file, "A .safetensors file")->required();
  app.add_option("--name", name, "The layer's name");
  app.add_option("--chunk-bytes", chunk_bytes, "Bytes of each message")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  const std::vector<grpc::ByteBuffer> messages = MakeMessages(name, file, chunk_bytes);
  const auto start = std::chrono::steady_clock::now();
  const grpc::Status status = Upload(target, messages);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::cout << nlohmann::json{{"seconds", seconds.count()},
                              {"code", static_cast<int>(status.error_code())},
                              {"message", status.error_message()}}
            << "\n";
  return status.ok() ? 0 : 1;
}
