// grpc::ServerBuilder, for tests/fake_grpc. Settings of the transport change nothing.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_BUILDER_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_BUILDER_H_

#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

namespace grpc {

class ServerBuilder {
 public:
  template <typename Value>
  ServerBuilder& AddChannelArgument(const std::string& /*key*/, const Value& /*value*/) {
    return *this;
  }
  ServerBuilder& SetCompressionAlgorithmSupportStatus(grpc_compression_algorithm /*algorithm*/, bool /*enabled*/) {
    return *this;
  }
  ServerBuilder& SetResourceQuota(const ResourceQuota& /*quota*/) { return *this; }
  ServerBuilder& RegisterAsyncGenericService(AsyncGenericService* service) {
    service_ = service;
    return *this;
  }
  // Every address is a port of its own, whatever it says.
  ServerBuilder& AddListeningPort(const std::string& /*address*/,
                                  const std::shared_ptr<ServerCredentials>& /*credentials*/, int* port) {
    ports_.push_back(port);
    return *this;
  }
  std::unique_ptr<ServerCompletionQueue> AddCompletionQueue() { return std::make_unique<ServerCompletionQueue>(); }
  std::unique_ptr<Server> BuildAndStart();

 private:
  AsyncGenericService* service_ = nullptr;
  std::vector<int*> ports_;
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_BUILDER_H_
