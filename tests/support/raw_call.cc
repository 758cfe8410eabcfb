#include "tests/support/raw_call.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

namespace attend::testing {
namespace {

std::string ToString(const grpc::ByteBuffer& bytes) {
  std::string text;
  std::vector<grpc::Slice> slices;
  if (!bytes.Valid() || !bytes.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

}  // namespace

RawAnswer CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& path, const std::string& request,
                  const RawCallOptions& options) {
  const auto owner = options.context != nullptr ? options.context : std::make_shared<grpc::ClientContext>();
  grpc::ClientContext& context = *owner;
  context.set_deadline(std::chrono::system_clock::now() + options.timeout);
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const grpc::Slice slice(request);
  const grpc::ByteBuffer bytes(&slice, 1);
  auto call = stub.PrepareUnaryCall(&context, path, bytes, &queue);
  call->StartCall();  // Sends nothing yet.
  RawAnswer answer;
  grpc::ByteBuffer response;
  call->Finish(&response, &answer.status, &context);
  if (options.on_started) options.on_started(context);

  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (answer.status.ok()) answer.response = ToString(response);
  for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
    answer.trailers.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  }
  return answer;
}

}  // namespace attend::testing
