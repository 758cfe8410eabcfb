#include "tests/support/test_server.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <cstdlib>
#include <iostream>

#include "absl/synchronization/mutex.h"
#include "client/lib/connect_errno.h"

namespace attend::testing {

server::ServerConfig TestConfig() {
  server::ServerConfig config;
  config.listen = {"127.0.0.1:0"};
  config.drain_wait = absl::ZeroDuration();
  config.log_level = "error";
  return config;
}

std::shared_ptr<grpc::Channel> MakeTestChannel(const std::string& address) {
  client::internal::ReadProcessorFacts();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

TestServer::TestServer(const server::ServerConfig& config)
    : log_({.format = server::LogFormat::kText, .level = server::ParseLogLevel(config.log_level)}) {
  // As in the server's main: Debian's Abseil would otherwise abort on lock orders that gRPC is known to use.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto server = server::AttentionServer::Start(config, log_);
  if (!server.ok()) {
    std::cerr << "TestServer: " << server.status() << std::endl;
    std::abort();
  }
  server_ = *std::move(server);
  channel_ = MakeTestChannel(address());
}

std::string TestServer::address() const { return "127.0.0.1:" + std::to_string(server_->ports().at(0)); }

}  // namespace attend::testing
