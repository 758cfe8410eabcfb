// The whole server on the fake gRPC: every service at once, its log, and an end that is hurried.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "attend/v1/attention_service.pb.h"
#include "attend/v1/layer_service.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1/reflection.pb.h"
#include "server/attention_server.h"
#include "tests/support/tensor_messages.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallUnary;
using fake_grpc::ClientCall;
using fake_grpc::UnaryAnswer;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

const std::string kService = "/attend.v1.AttentionService/";

server::ServerConfig SmallConfig() {
  server::ServerConfig config;
  config.listen = {"127.0.0.1:0"};
  config.threads = 2;
  config.polling_threads = 2;
  config.inline_flops = 1e5;
  config.drain_wait = absl::Milliseconds(20);
  return config;
}

// A server with a log of every line, and callers of all its services, each on a thread.
class WholeServer {
 public:
  explicit WholeServer(const server::ServerConfig& config)
      : log_({.level = spdlog::level::debug}, std::make_shared<spdlog::sinks::ostream_sink_mt>(lines_)),
        server_(*server::AttentionServer::Start(config, log_)) {}

  server::AttentionServer& server() { return *server_; }
  int port() const { return server_->ports()[0]; }
  // REQUIRES: drained.
  std::string log() const { return lines_.str(); }

 private:
  std::ostringstream lines_;
  server::Log log_;
  std::unique_ptr<server::AttentionServer> server_;
};

std::string Attend(std::int64_t tokens, std::uint32_t seed) {
  v1::AttendRequest request;
  *request.mutable_embeddings() = RandomTensor({1, tokens, 32}, seed);
  return request.SerializeAsString();
}

// Calls until the server has stopped; every answer to one request has the same bytes.
void CallAttend(int port, std::int64_t tokens) {
  std::optional<std::string> first;
  for (;;) {
    const UnaryAnswer answer = CallUnary(port, {.method = kService + "Attend"}, Attend(tokens, 1));
    if (!answer.ending.status.ok()) return;
    if (!first) first = answer.response;
    EXPECT_TRUE(answer.response == first);
  }
}

void Watch(int port, const std::string& service) {
  ClientCall call(port, {.method = "/grpc.health.v1.Health/Watch"});
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  call.Send(request.SerializeAsString());
  call.HalfClose();
  HealthCheckResponse response;
  std::vector<int> statuses;
  while (const std::optional<std::string> bytes = call.Receive()) {
    ASSERT_TRUE(response.ParseFromString(*bytes));
    statuses.push_back(response.status());
  }
  if (statuses.empty()) return;  // It came too late.
  EXPECT_LE(statuses.size(), 2u);
  for (std::size_t i = 1; i < statuses.size(); ++i) EXPECT_EQ(statuses[i], HealthCheckResponse::NOT_SERVING);
}

// Watchers that come and go.
void WatchForAMoment(int port) {
  for (int i = 0;; ++i) {
    ClientCall watch(port, {.method = "/grpc.health.v1.Health/Watch"});
    watch.Send("");
    if (i % 4 == 0 && !watch.Receive().has_value()) return;
  }
}

void CallOthers(int port) {
  for (int i = 0;; ++i) {
    if (!CallUnary(port, {.method = kService + "GetServerInfo"}, "").ending.status.ok()) return;
    if (!CallUnary(port, {.method = "/grpc.health.v1.Health/Check"}, "").ending.status.ok()) return;
    ClientCall reflection(port, {.method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"});
    grpc::reflection::v1::ServerReflectionRequest question;
    question.set_list_services("*");
    for (int asked = 0; asked < 2 && reflection.Send(question.SerializeAsString()); ++asked) reflection.Receive();
    if (i % 2 == 0) reflection.Cancel();
    reflection.HalfClose();
    if (reflection.Finish().status.error_code() == grpc::StatusCode::UNAVAILABLE) return;
  }
}

void Create(int port) {
  for (int seed = 0;; ++seed) {
    ClientCall call(port, {.method = "/attend.v1.LayerService/CreateLayer"});
    v1::CreateLayerRequest request;
    request.mutable_header()->set_name("made");
    request.mutable_header()->set_replace(true);
    request.mutable_header()->mutable_init()->set_seed(seed);
    request.mutable_header()->mutable_init()->set_embed_dim(32);
    call.Send(request.SerializeAsString());
    call.HalfClose();
    if (!call.Finish().status.ok()) return;
  }
}

TEST(ServerThreads, EveryServiceAtOnceUntilADrain) {
  WholeServer whole(SmallConfig());
  const int port = whole.port();
  std::thread drains([&whole] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    whole.server().Drain();
  });
  InThreads(8, [port](int thread) {
    switch (thread) {
      case 0: return CallAttend(port, 3);
      case 1: return CallAttend(port, 60);
      case 2: return Watch(port, "readiness");
      case 3: return Watch(port, "");
      case 4: return CallOthers(port);
      case 5:
      case 6: return WatchForAMoment(port);
      default: return Create(port);
    }
  });
  drains.join();
  EXPECT_THAT(whole.log(), HasSubstr("drained"));
  EXPECT_THAT(whole.log(), HasSubstr("memory_in_flight_bytes=0"));
}

// Two more signals, while the server still waits for load balancers, and while it waits for calls.
TEST(ServerThreads, AHurriedDrainEndsAtOnce) {
  for (int round = 0; round < 4; ++round) {
    server::ServerConfig config = SmallConfig();
    config.drain_wait = round % 2 == 0 ? absl::Hours(1) : absl::ZeroDuration();
    config.drain_timeout = absl::Hours(1);
    WholeServer whole(config);
    ClientCall stream(whole.port(), {.method = kService + "StreamAttend"});
    std::thread drains([&whole] { whole.server().Drain(); });
    std::thread calls([&whole] { CallAttend(whole.port(), 60); });
    InThreads(2, [&whole](int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      whole.server().ForceStop();
    });
    drains.join();
    calls.join();
  }
}

// What gRPC logs, on threads of its own, while peers give it reason to.
TEST(ServerThreads, LinesOfGrpcComeFromEveryThread) {
  std::ostringstream lines;
  server::Log log({.level = spdlog::level::warn}, std::make_shared<spdlog::sinks::ostream_sink_mt>(lines));
  server::GrpcLogRoute route(log);
  InThreads(4, [&route](int) {
    for (int i = 0; i < 200; ++i) {
      route.Write({.file = "f.cc", .line = 1, .severity = GPR_LOG_SEVERITY_ERROR, .message = "reset"});
    }
  });
  std::size_t count = 0;
  for (const char c : lines.str()) count += c == '\n' ? 1 : 0;
  EXPECT_GE(count, 10u);
  EXPECT_LE(count, 100u) << "800 lines in a moment";
}

}  // namespace
}  // namespace attend::testing
