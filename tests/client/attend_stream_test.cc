// The client's streams against a real server.
#include "client/lib/attend_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "client/lib/client.h"
#include "client/lib/server_error.h"
#include "tests/support/test_server.h"

namespace attend::client {
namespace {

using ::testing::Contains;
using ::testing::Field;

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

}  // namespace
}  // namespace attend::client
