// A server of attend.v1.LayerService that answers what a test tells it to, on a free port of 127.0.0.1.
#ifndef ATTEND_TESTS_CLIENT_FAKE_LAYER_SERVER_H_
#define ATTEND_TESTS_CLIENT_FAKE_LAYER_SERVER_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "attend/v1/layer_service.grpc.pb.h"

namespace attend::client {

// What the methods do; those that are not set answer UNIMPLEMENTED. Called concurrently.
struct FakeLayers {
  std::function<grpc::Status(grpc::ServerContext*, grpc::ServerReader<v1::CreateLayerRequest>*,
                             v1::CreateLayerResponse*)>
      create;
  std::function<grpc::Status(const v1::GetLayerRequest&, v1::GetLayerResponse*)> get;
  std::function<grpc::Status(const v1::ListLayersRequest&, v1::ListLayersResponse*)> list;
  std::function<grpc::Status(const v1::DeleteLayerRequest&, v1::DeleteLayerResponse*)> remove;
};

class FakeLayerServer {
 public:
  explicit FakeLayerServer(FakeLayers layers) : service_(std::move(layers)) {
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }

  ~FakeLayerServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  int calls() const { return service_.calls; }

 private:
  struct Service : v1::LayerService::Service {
    explicit Service(FakeLayers l) : layers(std::move(l)) {}

    grpc::Status CreateLayer(grpc::ServerContext* context, grpc::ServerReader<v1::CreateLayerRequest>* reader,
                             v1::CreateLayerResponse* response) override {
      ++calls;
      return layers.create ? layers.create(context, reader, response) : grpc::Status(grpc::UNIMPLEMENTED, "");
    }
    grpc::Status GetLayer(grpc::ServerContext*, const v1::GetLayerRequest* request,
                          v1::GetLayerResponse* response) override {
      ++calls;
      return layers.get ? layers.get(*request, response) : grpc::Status(grpc::UNIMPLEMENTED, "");
    }
    grpc::Status ListLayers(grpc::ServerContext*, const v1::ListLayersRequest* request,
                            v1::ListLayersResponse* response) override {
      ++calls;
      return layers.list ? layers.list(*request, response) : grpc::Status(grpc::UNIMPLEMENTED, "");
    }
    grpc::Status DeleteLayer(grpc::ServerContext*, const v1::DeleteLayerRequest* request,
                             v1::DeleteLayerResponse* response) override {
      ++calls;
      return layers.remove ? layers.remove(*request, response) : grpc::Status(grpc::UNIMPLEMENTED, "");
    }

    FakeLayers layers;
    std::atomic<int> calls = 0;
  };

  Service service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace attend::client

#endif  // ATTEND_TESTS_CLIENT_FAKE_LAYER_SERVER_H_
