// A disk that makes a change and cannot promise to keep it: what callers, the audit and later requests are told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <memory>
#include <optional>
#include <sstream>
#include <string>

#include "absl/synchronization/mutex.h"
#include "attend/v1/layer_service.grpc.pb.h"
#include "server/attention_server.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_server.h"
#include "tests/support/unsyncable_folder.h"

namespace attend::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LayerChangesTest : public ::testing::Test {
 protected:
  LayerChangesTest() {
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    server::ServerConfig config = TestConfig();
    config.data_dir = folder_.path() + "/data";
    auto server = server::AttentionServer::Start(config, log_, [this](server::StorageStep step) {
      const bool done = step == server::StorageStep::kRenamed || step == server::StorageStep::kRemoved;
      if (done && failing_) unsyncable_.emplace(folder_.path() + "/data/layers");
    });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::LayerService::NewStub(MakeTestChannel("127.0.0.1:" + std::to_string(server_->ports().at(0))));
  }

  // Each is one call, after which the disk is whole again.
  grpc::Status Create() {
    grpc::ClientContext context;
    v1::CreateLayerResponse response;
    v1::CreateLayerRequest request;
    request.mutable_header()->set_name("a");
    request.mutable_header()->set_replace(true);
    request.mutable_header()->mutable_init()->set_seed(++seed_);
    request.mutable_header()->mutable_init()->set_embed_dim(16);
    const auto writer = stub_->CreateLayer(&context, &response);
    writer->Write(request);
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    unsyncable_.reset();
    return status;
  }
  grpc::Status Delete() {
    grpc::ClientContext context;
    v1::DeleteLayerRequest request;
    v1::DeleteLayerResponse response;
    request.set_name("a");
    const grpc::Status status = stub_->DeleteLayer(&context, request, &response);
    unsyncable_.reset();
    return status;
  }
  // Empty when there is no layer.
  std::string Etag() {
    grpc::ClientContext context;
    v1::GetLayerRequest request;
    v1::GetLayerResponse response;
    request.set_name("a");
    return stub_->GetLayer(&context, request, &response).ok() ? response.layer().etag() : "";
  }
  // What was logged since the last time.
  std::string Logged() {
    std::string text = out_.str();
    out_.str("");
    return text;
  }

  const TemporaryFolder folder_;
  std::ostringstream out_;
  server::Log log_{{.level = spdlog::level::err}, std::make_shared<spdlog::sinks::ostream_sink_mt>(out_)};
  bool failing_ = false;
  int seed_ = 0;
  std::optional<UnsyncableFolder> unsyncable_;
  std::unique_ptr<server::AttentionServer> server_;
  std::unique_ptr<v1::LayerService::Stub> stub_;
};

TEST_F(LayerChangesTest, AReplacedLayerIsServedAndOnRecordAlthoughTheFolderCannotBeSynced) {
  ASSERT_TRUE(Create().ok());
  EXPECT_THAT(Logged(), HasSubstr("event=\"layer created\""));
  const std::string before = Etag();
  failing_ = true;
  const grpc::Status failed = Create();
  EXPECT_EQ(failed.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(failed.error_message(), HasSubstr("the new layer is in its place, but a loss of power may undo that"));
  const std::string after = Etag();
  EXPECT_NE(after, before);
  const std::string logged = Logged();
  EXPECT_THAT(logged, HasSubstr("event=\"layer replaced\""));
  EXPECT_THAT(logged, HasSubstr("etag=" + after));
}

TEST_F(LayerChangesTest, ADeletedLayerIsGoneAndOnRecordAlthoughTheFolderCannotBeSynced) {
  ASSERT_TRUE(Create().ok());
  const std::string etag = Etag();
  Logged();
  failing_ = true;
  const grpc::Status failed = Delete();
  EXPECT_EQ(failed.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(failed.error_message(), HasSubstr("the layer is deleted, but a loss of power may undo that"));
  EXPECT_EQ(Etag(), "") << "as after a restart";
  const std::string logged = Logged();
  EXPECT_THAT(logged, HasSubstr("event=\"layer deleted\""));
  EXPECT_THAT(logged, HasSubstr("etag=" + etag));
  EXPECT_EQ(Delete().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(Logged(), Not(HasSubstr("layer deleted")));
}

}  // namespace
}  // namespace attend::testing
