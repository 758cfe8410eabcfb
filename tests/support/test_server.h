// A whole attend server inside the test's process, on a free port of 127.0.0.1.
//
//   TestServer server;
//   auto stub = attend::v1::AttentionService::NewStub(server.channel());
#ifndef ATTEND_TESTS_SUPPORT_TEST_SERVER_H_
#define ATTEND_TESTS_SUPPORT_TEST_SERVER_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "server/attention_server.h"

namespace attend::testing {

// Defaults for tests: a free port, no wait before the drain, a log of errors alone.
server::ServerConfig TestConfig();

// A new connection to `address`, shared with nobody, with unlimited message sizes; any HTTP proxy of the environment is
// ignored.
std::shared_ptr<grpc::Channel> MakeTestChannel(const std::string& address);

class TestServer {
 public:
  // Aborts the test program with the reason when the server does not start.
  explicit TestServer(const server::ServerConfig& config = TestConfig());

  // `127.0.0.1:port`.
  std::string address() const;
  // One channel per object.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  server::AttentionServer& server() { return *server_; }

 private:
  server::Log log_;
  std::unique_ptr<server::AttentionServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_TEST_SERVER_H_
