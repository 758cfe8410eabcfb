// Uploads that are refused take nothing from those that are not.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attend/v1/layer_service.grpc.pb.h"
#include "formats/files/sha256.h"
#include "server/attention_server.h"
#include "tests/support/error_details.h"
#include "tests/support/raw_http2_call.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

constexpr char kCreate[] = "/attend.v1.LayerService/CreateLayer";
constexpr char kToken[] = "token-of-the-other";

v1::CreateLayerRequest Header(const std::string& name) {
  v1::CreateLayerRequest request;
  request.mutable_header()->set_name(name);
  request.mutable_header()->mutable_init()->set_seed(1);
  request.mutable_header()->mutable_init()->set_embed_dim(16);
  return request;
}

// Two slots belong to layers that are being stored, which takes until the gate opens. There is one more.
class UploadRefusalsTest : public ::testing::Test {
 protected:
  explicit UploadRefusalsTest(int max_uploads = 3) {
    server::ServerConfig config = TestConfig();
    config.data_dir = folder_.path() + "/data";
    config.layers.max_uploads = max_uploads;
    config.identity.principals_path =
        folder_.Write("principals.json", R"({"principals": [{"name": "other", "roles": ["layers"],
        "tokens": [{"sha256": ")" + formats::ToHex(formats::Sha256::Of(kToken)) +
                                             R"("}]}]})");
    config.polling_threads = 1;  // Calls of one connection are begun in their order.
    auto server = server::AttentionServer::Start(config, log_, [this](server::StorageStep step) {
      if (step != server::StorageStep::kSynced) return;
      stored_.fetch_add(1);
      gate_.WaitForNotification();
    });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::LayerService::NewStub(MakeTestChannel("127.0.0.1:" + std::to_string(port())));
    for (const char* name : {"a", "b"}) {
      storing_.emplace_back([this, name] {
        grpc::ClientContext context;
        v1::CreateLayerResponse response;
        const auto writer = stub_->CreateLayer(&context, &response);
        writer->Write(Header(name));
        writer->WritesDone();
        EXPECT_TRUE(writer->Finish().ok());
      });
    }
    while (stored_.load() < 2) absl::SleepFor(absl::Milliseconds(1));
  }
  ~UploadRefusalsTest() override { LetThemEnd(); }

  int port() const { return server_->ports().at(0); }
  void Open() {
    if (!gate_.HasBeenNotified()) gate_.Notify();
  }
  // Both layers are there, and their slots free.
  void LetThemEnd() {
    Open();
    for (std::thread& thread : storing_) thread.join();
    storing_.clear();
  }
  // Comes back when the calls before it on this connection have begun.
  void Ask() {
    grpc::ClientContext context;
    v1::GetLayerRequest request;
    v1::GetLayerResponse response;
    request.set_name("none");
    EXPECT_EQ(stub_->GetLayer(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  }

  const TemporaryFolder folder_;
  server::Log log_{{.level = spdlog::level::off}};
  absl::Notification gate_;
  std::atomic<int> stored_{0};  // Or at the gate.
  std::unique_ptr<server::AttentionServer> server_;
  std::unique_ptr<v1::LayerService::Stub> stub_;
  std::vector<std::thread> storing_;
};

TEST_F(UploadRefusalsTest, RefusedCallsThatAreResetTakeNoPlaceOfAnUpload) {
  grpc::ClientContext context;
  v1::CreateLayerResponse response;
  const auto writer = stub_->CreateLayer(&context, &response);  // Has the third slot, and sends nothing as yet.
  Ask();
  for (int i = 0; i < 60; ++i) {  // More than there is room for in the queue of the upload threads.
    const RawHttp2Call reset(port(), kCreate, {}, "", /*resets=*/true);
    absl::SleepFor(absl::Milliseconds(2));
  }
  absl::SleepFor(absl::Milliseconds(100));
  writer->Write(Header("honest"));
  writer->WritesDone();
  absl::SleepFor(absl::Milliseconds(100));
  Open();
  const grpc::Status status = writer->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

// The two are all that there are. Nobody can give up what is being stored.
class TakenUploadsTest : public UploadRefusalsTest {
 protected:
  TakenUploadsTest() : UploadRefusalsTest(/*max_uploads=*/2) {}

  // By the caller of all others here or, with its token, by another one.
  grpc::Status Upload(const std::string& name, bool is_other) {
    grpc::ClientContext context;
    if (is_other) context.AddMetadata("authorization", std::string("Bearer ") + kToken);
    v1::CreateLayerResponse response;
    const auto writer = stub_->CreateLayer(&context, &response);
    writer->Write(Header(name));
    writer->WritesDone();
    return writer->Finish();
  }
};

TEST_F(TakenUploadsTest, WhoHasAQuarterGetsNoMoreWhileAnotherIsRefused) {
  const auto reason = [](const grpc::Status& status) { return Detail<google::rpc::ErrorInfo>(status).reason(); };
  const absl::Time refused = absl::Now();
  EXPECT_EQ(reason(Upload("c", /*is_other=*/true)), "TOO_MANY_UPLOADS");
  LetThemEnd();
  grpc::ClientContext context;
  v1::CreateLayerResponse response;
  const auto quarter = stub_->CreateLayer(&context, &response);  // Up to its part the caller has one.
  Ask();
  const grpc::Status third = Upload("d", /*is_other=*/false);
  // The refusal is forgotten after five seconds, which a machine that stands still may take.
  if (absl::Now() - refused < absl::Seconds(4)) {
    EXPECT_EQ(reason(third), "TOO_MANY_UPLOADS") << "the other's place";
  }
  const grpc::Status other = Upload("c", /*is_other=*/true);
  EXPECT_TRUE(other.ok()) << other.error_message();
  quarter->Write(Header("e"));
  quarter->WritesDone();
  EXPECT_TRUE(quarter->Finish().ok());
}

}  // namespace
}  // namespace attend::testing
