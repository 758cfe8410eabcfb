// A server of attend.v1 that answers what a test tells it to, on a free port of 127.0.0.1.
#ifndef ATTEND_TESTS_CLIENT_FAKE_SERVER_H_
#define ATTEND_TESTS_CLIENT_FAKE_SERVER_H_

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "attend/v1/attention_service.grpc.pb.h"

namespace attend::client {

class FakeServer {
 public:
  // Answers call number `call` (0-based, over all methods' attempts). Called concurrently.
  using Handler = std::function<grpc::Status(int call, grpc::ServerContext* context, const v1::AttendRequest& request,
                                             v1::AttendResponse* response)>;

  explicit FakeServer(Handler handler,
                      std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials())
      : service_(std::move(handler)) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
    builder.AddListeningPort("127.0.0.1:0", std::move(credentials), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }

  ~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  int port() const { return port_; }
  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  int calls() const { return service_.calls; }
  grpc::HealthCheckServiceInterface* health() { return server_->GetHealthCheckService(); }

 private:
  struct Service : v1::AttentionService::Service {
    explicit Service(Handler h) : handler(std::move(h)) {}

    grpc::Status Attend(grpc::ServerContext* context, const v1::AttendRequest* request,
                        v1::AttendResponse* response) override {
      return handler(calls++, context, *request, response);
    }

    Handler handler;
    std::atomic<int> calls = 0;
  };

  Service service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace attend::client

#endif  // ATTEND_TESTS_CLIENT_FAKE_SERVER_H_
