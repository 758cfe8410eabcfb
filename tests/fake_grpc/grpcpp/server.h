// grpc::Server, for tests/fake_grpc.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_H_

#include <grpc/grpc.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <memory>

namespace grpc {

class Server {
 public:
  explicit Server(std::shared_ptr<attend::fake_grpc::ServerState> state);
  ~Server();

  // Refuses new calls, gives back those that were requested, and returns when every call has ended; cancels those that
  // have not at `deadline`. REQUIRES: called at most once.
  void Shutdown(std::chrono::system_clock::time_point deadline);
  // For grpc_server_cancel_all_calls.
  grpc_server* c_server();

 private:
  std::shared_ptr<attend::fake_grpc::ServerState> state_;
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_H_
