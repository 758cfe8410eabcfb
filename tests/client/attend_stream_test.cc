// The client's streams against a real server, and against one that answers what no server should.
#include "client/lib/attend_stream.h"

#include <gmock/gmock.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "attend/v1/attention_service.grpc.pb.h"
#include "client/lib/client.h"
#include "client/lib/server_error.h"
#include "tests/support/test_server.h"

namespace attend::client {
namespace {

using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;

const CallOptions kCall(absl::Seconds(30));

// Embeddings of one number each.
v1::AttendRequest Request(float number) {
  v1::AttendRequest request;
  request.mutable_embeddings()->set_data_type(v1::DATA_TYPE_FLOAT32);
  request.mutable_embeddings()->add_shape(1);
  request.mutable_embeddings()->add_shape(1);
  request.mutable_embeddings()->add_values(number);
  return request;
}

class AttendStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Client> client = Client::Connect({.endpoints = {server_.address()}});
    ASSERT_TRUE(client.ok()) << client.status();
    client_.emplace(*std::move(client));
  }

  testing::TestServer server_;
  std::optional<Client> client_;
};

TEST_F(AttendStreamTest, AllAreAnsweredEachByItself) {
  std::vector<v1::AttendRequest> requests;
  for (int i = 0; i < 500; ++i) requests.push_back(Request(static_cast<float>(i)));
  requests[7].mutable_embeddings()->add_shape(5);
  std::set<std::size_t> answered;
  const absl::Status status = AttendAll(*client_, requests, kCall, [&](std::size_t i, StreamResult answer) {
    EXPECT_TRUE(answered.insert(i).second);
    EXPECT_THAT(answer.server_timing, Contains(Field(&StageTime::name, "compute")));
    if (i == 7) {
      EXPECT_TRUE(absl::IsInvalidArgument(answer.response.status()));
      EXPECT_EQ(GetServerError(answer.response.status()).domain, "attend.v1");
      EXPECT_TRUE(AnsweredByServer(answer.response.status()));
    } else {
      ASSERT_TRUE(answer.response.ok()) << answer.response.status();
      EXPECT_EQ(answer.response->output().values(0), static_cast<float>(i));
    }
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(answered.size(), requests.size());
}

TEST_F(AttendStreamTest, WhatACallbackThrowsReachesTheCaller) {
  // More than a stream takes at a time: the thread that sends waits for whoever receives.
  const std::vector<v1::AttendRequest> requests(5000, Request(1));
  const auto give_up = [](std::size_t, const StreamResult&) { throw std::runtime_error("enough"); };
  EXPECT_THROW(AttendAll(*client_, requests, kCall, give_up).IgnoreError(), std::runtime_error);
}

TEST_F(AttendStreamTest, SeveralThreadsSendOneReceives) {
  const auto stream = client_->StreamAttend(kCall);
  ASSERT_TRUE(stream.ok()) << stream.status();
  std::vector<std::thread> senders;
  for (std::int64_t sender = 0; sender < 4; ++sender) {
    senders.emplace_back([&, sender] {
      for (std::int64_t i = 0; i < 100; ++i) {
        const std::int64_t id = 100 * sender + i;
        EXPECT_TRUE((*stream)->Send(id, Request(static_cast<float>(id)), absl::Seconds(30)).ok());
      }
    });
  }
  std::thread closer([&] {
    for (std::thread& sender : senders) sender.join();
    (*stream)->CloseSending();
    EXPECT_TRUE(absl::IsFailedPrecondition((*stream)->Send(0, Request(0))));
  });
  int answers = 0;
  while (const std::optional<StreamResult> answer = (*stream)->Receive()) {
    ASSERT_TRUE(answer->response.ok()) << answer->response.status();
    EXPECT_EQ(answer->response->output().values(0), static_cast<float>(answer->id));
    ++answers;
  }
  closer.join();
  EXPECT_EQ(answers, 400);
  EXPECT_TRUE((*stream)->Finish().ok());
}

TEST_F(AttendStreamTest, ARequestThatIsTooLargeIsRefusedByItself) {
  const auto client = Client::Connect({.endpoints = {server_.address()}, .max_message_bytes = 2000});
  std::vector<v1::AttendRequest> requests = {Request(0), Request(1), Request(2)};
  requests[1].mutable_embeddings()->mutable_values()->Resize(1000, 1);
  std::map<std::size_t, absl::Status> answers;
  const absl::Status status = AttendAll(*client, requests, kCall, [&](std::size_t i, const StreamResult& answer) {
    EXPECT_TRUE(answers.emplace(i, answer.response.status()).second);
  });
  EXPECT_TRUE(status.ok()) << status;
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_TRUE(answers[0].ok() && answers[2].ok()) << answers[0] << answers[2];
  EXPECT_EQ(answers[1].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(answers[1].message()), HasSubstr("this client sends at most 2000 (max_message_bytes)"));
  const auto stream = client->StreamAttend(kCall);
  EXPECT_EQ((*stream)->Send(1, requests[1]).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE((*stream)->Send(2, requests[2]).ok());
  EXPECT_EQ((*stream)->Receive()->id, 2);
}

TEST_F(AttendStreamTest, CancelEndsIt) {
  const auto stream = client_->StreamAttend(kCall);
  ASSERT_TRUE(stream.ok()) << stream.status();
  (*stream)->Cancel();
  EXPECT_FALSE((*stream)->Receive().has_value());
  EXPECT_TRUE(absl::IsCancelled((*stream)->Finish()));
}

TEST_F(AttendStreamTest, StreamThatIsForgottenIsCancelled) {
  const auto stream = client_->StreamAttend(kCall);
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_TRUE((*stream)->Send(1, Request(1)).ok());
}

TEST_F(AttendStreamTest, TimeoutsAreChecked) {
  EXPECT_TRUE(absl::IsInvalidArgument(client_->StreamAttend(CallOptions(absl::InfiniteDuration())).status()));
  const auto stream = client_->StreamAttend(kCall);
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_TRUE(absl::IsInvalidArgument((*stream)->Send(1, Request(1), absl::ZeroDuration())));
  EXPECT_TRUE((*stream)->Send(2, Request(2), absl::Hours(1 << 30)).ok());
  EXPECT_EQ((*stream)->Receive()->id, 2);
}

// Answers request number `id` with an error whose code is `id`.
struct ErrorServer : v1::AttentionService::Service {
  ErrorServer() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server = builder.BuildAndStart();
    endpoint = "127.0.0.1:" + std::to_string(port);
  }
  ~ErrorServer() override { server->Shutdown(std::chrono::system_clock::now()); }

  grpc::Status StreamAttend(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::StreamAttendResponse, v1::StreamAttendRequest>* stream) override {
    v1::StreamAttendRequest request;
    while (stream->Read(&request)) {
      v1::StreamAttendResponse response;
      response.set_id(request.id());
      response.mutable_status()->set_code(static_cast<std::int32_t>(request.id()));
      response.mutable_status()->set_message("nothing came of it");
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> server;
  std::string endpoint;
};

TEST(AttendStreamErrorsTest, AnErrorOfAnyCodeIsAnErrorThatOfOkToo) {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int32_t>::min();
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  ErrorServer server;
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.endpoint}});
  ASSERT_TRUE(client.ok()) << client.status();
  const auto stream = client->StreamAttend(kCall);
  ASSERT_TRUE(stream.ok()) << stream.status();
  for (const std::int64_t code :
       {std::int64_t{0}, std::int64_t{5}, std::int64_t{77}, std::int64_t{-1}, kLeast, kMost}) {
    ASSERT_TRUE((*stream)->Send(code, Request(1)).ok());
    const std::optional<StreamResult> result = (*stream)->Receive();
    ASSERT_TRUE(result.has_value());
    const absl::StatusCode expected = code == 0   ? absl::StatusCode::kInternal
                                      : code == 5 ? absl::StatusCode::kNotFound
                                                  : absl::StatusCode::kUnknown;
    EXPECT_EQ(result->response.status().code(), expected) << code;
    EXPECT_EQ(result->sdpa_response.status(), result->response.status()) << code;
    EXPECT_THAT(std::string(result->response.status().message()), HasSubstr("nothing came of it"));
  }
  (*stream)->CloseSending();
  EXPECT_FALSE((*stream)->Receive().has_value());
  EXPECT_TRUE((*stream)->Finish().ok());
}

}  // namespace
}  // namespace attend::client
