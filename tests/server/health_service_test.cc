// grpc.health.v1: what each name answers, and what watchers see when the server drains.
#include "server/services/health_service.h"

#include <grpc/health/v1/health.grpc.pb.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr const char* kNames[] = {"", "attend.v1.AttentionService", "readiness", "liveness"};

// Test calls end by themselves.
void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

HealthCheckRequest Request(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

grpc::Status Check(const TestServer& server, const std::string& service, HealthCheckResponse& response) {
  grpc::ClientContext context;
  SetDeadline(context);
  return Health::NewStub(server.channel())->Check(&context, Request(service), &response);
}

TEST(HealthServiceTest, CheckKnowsEachNameAndNoOther) {
  TestServer server;
  for (const char* name : kNames) {
    HealthCheckResponse response;
    const grpc::Status status = Check(server, name, response);
    EXPECT_TRUE(status.ok()) << name << ": " << status.error_message();
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING) << name;
  }
  for (const char* name : {"attend", "attend.v1.attentionservice", "LIVENESS", " "}) {
    HealthCheckResponse response;
    EXPECT_EQ(Check(server, name, response).error_code(), grpc::StatusCode::NOT_FOUND) << name;
  }
}

TEST(HealthServiceTest, WatchOfAnUnknownNameStaysOpen) {
  TestServer server;
  grpc::ClientContext context;
  SetDeadline(context);
  auto stub = Health::NewStub(server.channel());
  auto reader = stub->Watch(&context, Request("nobody"));
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(HealthServiceTest, WatchersSeeTheDrainAndTheirStreamsEnd) {
  server::ServerConfig config = TestConfig();
  config.drain_wait = absl::Milliseconds(300);
  TestServer server(config);
  auto stub = Health::NewStub(server.channel());
  struct Watch {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader;
  };
  std::vector<Watch> watches(std::size(kNames));
  HealthCheckResponse response;
  for (std::size_t i = 0; i < watches.size(); ++i) {
    SetDeadline(watches[i].context);
    watches[i].reader = stub->Watch(&watches[i].context, Request(kNames[i]));
    ASSERT_TRUE(watches[i].reader->Read(&response));
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  }
  std::thread drain([&server] { server.server().Drain(); });
  for (std::size_t i = 0; i < watches.size(); ++i) {
    if (std::string(kNames[i]) != "liveness") {
      ASSERT_TRUE(watches[i].reader->Read(&response)) << kNames[i];
      EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING) << kNames[i];
    }
    EXPECT_FALSE(watches[i].reader->Read(&response)) << kNames[i];
    EXPECT_EQ(watches[i].reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  drain.join();
}

TEST(HealthServiceTest, CallsAreStillTakenWhileDrainingWaits) {
  server::ServerConfig config = TestConfig();
  config.drain_wait = absl::Hours(1);
  TestServer server(config);
  std::thread drain([&server] { server.server().Drain(); });
  HealthCheckResponse response;
  do {
    ASSERT_TRUE(Check(server, "", response).ok());
  } while (response.status() == HealthCheckResponse::SERVING);
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  ASSERT_TRUE(Check(server, "liveness", response).ok());
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  server.server().ForceStop();
  drain.join();
}

}  // namespace
}  // namespace attend::testing
