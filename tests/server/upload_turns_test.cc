// Uploads take turns on the upload threads.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attend/v1/layer_service.grpc.pb.h"
#include "server/attention_server.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

constexpr int kChunks = 24;

class UploadTurnsTest : public ::testing::Test {
 protected:
  UploadTurnsTest() {
    server::ServerConfig config = TestConfig();
    config.data_dir = folder_.path() + "/data";
    config.polling_threads = 1;  // Calls of one connection are begun in their order.
    auto server = server::AttentionServer::Start(config, log_, [this](server::StorageStep step) { Observe(step); });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::LayerService::NewStub(MakeTestChannel("127.0.0.1:" + std::to_string(server_->ports().at(0))));
  }
  ~UploadTurnsTest() override {
    Open();
    for (std::thread& thread : senders_) thread.join();
  }

  void Observe(server::StorageStep step) {
    if (step == server::StorageStep::kSealed) written_before_the_first_seal_ = written_.load();
    if (step != server::StorageStep::kChunkWritten) return;
    ++at_the_gate_;
    gate_.WaitForNotification();
    absl::SleepFor(absl::Milliseconds(10));  // A disk that is slower than the caller.
    ++written_;
  }
  void Open() {
    if (!gate_.HasBeenNotified()) gate_.Notify();
  }
  void SendMuch(const std::string& name) {
    senders_.emplace_back([this, name] {
      grpc::ClientContext context;
      v1::CreateLayerResponse response;
      const auto writer = stub_->CreateLayer(&context, &response);
      v1::CreateLayerRequest request;
      request.mutable_header()->set_name(name);
      request.mutable_header()->mutable_config()->set_num_heads(1);
      writer->Write(request);
      request.set_chunk(std::string(std::size_t{1} << 20, 'x'));
      for (int i = 0; i < kChunks; ++i) writer->Write(request);
      writer->WritesDone();
      EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "what it sends is no layer";
    });
  }

  const TemporaryFolder folder_;
  server::Log log_{{.level = spdlog::level::off}};
  absl::Notification gate_;
  std::atomic<int> at_the_gate_{0}, written_{0}, written_before_the_first_seal_{-1};
  std::unique_ptr<server::AttentionServer> server_;
  std::unique_ptr<v1::LayerService::Stub> stub_;
  std::vector<std::thread> senders_;
};

TEST_F(UploadTurnsTest, TwoThatSendFasterThanTheDiskDoNotKeepBothThreads) {
  SendMuch("a");
  SendMuch("b");
  while (at_the_gate_ < 2) absl::SleepFor(absl::Milliseconds(1));
  grpc::ClientContext context;
  v1::CreateLayerResponse response;
  const auto small = stub_->CreateLayer(&context, &response);
  v1::CreateLayerRequest request;
  request.mutable_header()->set_name("small");
  request.mutable_header()->mutable_init()->set_seed(1);
  request.mutable_header()->mutable_init()->set_embed_dim(4);
  small->Write(request);
  small->WritesDone();
  v1::GetLayerResponse none;
  for (int i = 0; i < 20; ++i) {  // By then the call before it on this connection waits for a thread.
    grpc::ClientContext other;
    stub_->GetLayer(&other, v1::GetLayerRequest(), &none);
  }
  Open();
  const grpc::Status status = small->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_LT(written_before_the_first_seal_, kChunks) << "it waited for one of them to end";
}

}  // namespace
}  // namespace attend::testing
