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

namespace grpc {

namespace experimental {

// Takes connections that the server has accepted. Here they say on which port a server can be found, and are closed.
class ExternalConnectionAcceptor {
 public:
  struct NewConnectionParameters {
    int listener_fd = -1;
    int fd = -1;
  };
  virtual ~ExternalConnectionAcceptor() = default;
  virtual void HandleNewConnection(NewConnectionParameters* connection) = 0;
};

}  // namespace experimental

class ServerBuilder {
 public:
  class experimental_type {
   public:
    enum class ExternalConnectionType { FROM_FD = 0 };

    explicit experimental_type(ServerBuilder& builder) : builder_(builder) {}
    std::unique_ptr<experimental::ExternalConnectionAcceptor> AddExternalConnectionAcceptor(
        ExternalConnectionType type, const std::shared_ptr<ServerCredentials>& credentials);

   private:
    ServerBuilder& builder_;
  };
  experimental_type experimental() { return experimental_type(*this); }

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
  std::unique_ptr<ServerCompletionQueue> AddCompletionQueue() { return std::make_unique<ServerCompletionQueue>(); }
  std::unique_ptr<Server> BuildAndStart();

 private:
  AsyncGenericService* service_ = nullptr;
  // Filled in when the server is built.
  std::shared_ptr<std::weak_ptr<attend::fake_grpc::ServerState>> built_ =
      std::make_shared<std::weak_ptr<attend::fake_grpc::ServerState>>();
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_BUILDER_H_
