// Layers on many threads: created, replaced, deleted, listed and called at the same time; uploads that are cancelled,
// evicted, too many, or cut off by the server's end. Every answer is that of one version of the layer, and neither
// memory nor files are left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "attend/v1/layer_service.pb.h"
#include "server/requests/decoders.h"
#include "server/services/attend_services.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_messages.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallUnary;
using fake_grpc::ClientCall;
using fake_grpc::Ending;
using fake_grpc::UnaryAnswer;
using ::testing::AnyOf;

constexpr char kAttend[] = "/test.Test/Attend";
constexpr char kCreate[] = "/attend.v1.LayerService/CreateLayer";
constexpr char kGet[] = "/attend.v1.LayerService/GetLayer";
constexpr char kList[] = "/attend.v1.LayerService/ListLayers";
constexpr char kDelete[] = "/attend.v1.LayerService/DeleteLayer";

// An engine that serves layers, too.
class LayerEngine {
 public:
  struct Settings {
    std::string data_dir;  // Empty: memory.
    int max_uploads = 8;
    std::chrono::microseconds patience = std::chrono::seconds(30);
  };

  explicit LayerEngine(const Settings& settings)
      : log_({.level = spdlog::level::off}),
        store_(*server::LayerStore::Open({.limits = {}, .storage = {.data_dir = settings.data_dir, .observer = {}}}, {},
                                         log_)),
        slots_(settings.max_uploads, /*min_bytes_per_second=*/1 << 20, settings.patience),
        upload_executor_({.num_threads = 2, .max_queued_tasks = 2 * settings.max_uploads + 16}),
        engine_({.add_methods = [this](const server::RequestServices& requests, server::MethodTable& methods) {
          uploads_ = {.store = store_.get(),
                      .slots = &slots_,
                      .memory = requests.memory,
                      .executor = &upload_executor_,
                      .max_request_bytes = 1 << 20};
          server::AddLayerService(uploads_, requests, methods);
          methods.Add(kAttend,
                      server::MakeUnaryMethod(requests, {.decode = server::AttendDecoder(&store_->registry())}));
        }}) {}

  BusyEngine& engine() { return engine_; }
  int port() const { return engine_.port(); }

 private:
  server::Log log_;
  std::unique_ptr<server::LayerStore> store_;
  server::UploadSlots slots_;
  Executor upload_executor_;
  server::UploadServices uploads_;
  BusyEngine engine_;
};

std::string Header(const v1::CreateLayerHeader& header) {
  v1::CreateLayerRequest request;
  *request.mutable_header() = header;
  return request.SerializeAsString();
}

std::string Chunk(const std::string& bytes) {
  v1::CreateLayerRequest request;
  request.set_chunk(bytes);
  return request.SerializeAsString();
}

v1::CreateLayerHeader Named(const std::string& name) {
  v1::CreateLayerHeader header;
  header.set_name(name);
  header.set_replace(true);
  header.mutable_config()->set_num_heads(2);
  return header;
}

// A file of about 100 KiB, whose numbers depend on `version`.
std::string File(int version) {
  std::mt19937 random(static_cast<std::uint32_t>(version));
  CheckpointBuilder builder;
  for (const char* name : {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"}) {
    builder.Add(name, RandomMatrix(80, 80, random));
  }
  return builder.Build();
}

// Sends all of an upload in pieces; false when the call ended before.
bool SendUpload(ClientCall& call, const v1::CreateLayerHeader& header, const std::string& file) {
  constexpr std::size_t kPiece = 20'000;
  if (!call.Send(Header(header))) return false;
  for (std::size_t begin = 0; begin < file.size(); begin += kPiece) {
    if (!call.Send(Chunk(file.substr(begin, kPiece)))) return false;
  }
  return true;
}

Ending Upload(int port, const v1::CreateLayerHeader& header, const std::string& file) {
  ClientCall call(port, {.method = kCreate});
  SendUpload(call, header, file);
  call.HalfClose();
  return call.Finish();
}

std::string AttendBy(const std::string& name) {
  v1::AttendRequest request;
  *request.mutable_embeddings() = RandomTensor({1, 3, 80}, 7);
  request.set_layer_name(name);
  return request.SerializeAsString();
}

// What a version computes; the etag in the receipt is of one upload alone.
std::string WithoutReceipt(const std::string& response) {
  v1::AttendResponse answer;
  EXPECT_TRUE(answer.ParseFromString(response));
  answer.clear_receipt();
  return answer.SerializeAsString();
}

std::string GetBy(const std::string& name) {
  v1::GetLayerRequest request;
  request.set_name(name);
  return request.SerializeAsString();
}

std::string DeleteBy(const std::string& name) {
  v1::DeleteLayerRequest request;
  request.set_name(name);
  return request.SerializeAsString();
}

class LayerThreads : public ::testing::TestWithParam<bool> {
 protected:
  std::string data_dir() const { return GetParam() ? folder_.path() : ""; }
  // What uploads left behind.
  int TemporaryFiles() const {
    int files = 0;
    for (const auto& file : std::filesystem::recursive_directory_iterator(folder_.path())) {
      files += file.path().extension() == ".tmp" ? 1 : 0;
    }
    return files;
  }
  TemporaryFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(KeptIn, LayerThreads, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Folder" : "Memory"; });

TEST_P(LayerThreads, ALayerIsReplacedAndDeletedWhileItIsCalled) {
  constexpr int kVersions = 3;
  const std::string files[kVersions] = {File(0), File(1), File(2)};
  {
    LayerEngine engine({.data_dir = data_dir()});
    const int port = engine.port();
    std::set<std::string> right;
    for (const std::string& file : files) {
      ASSERT_TRUE(Upload(port, Named("a"), file).status.ok());
      right.insert(WithoutReceipt(*CallUnary(port, {.method = kAttend}, AttendBy("a")).response));
    }
    ASSERT_EQ(right.size(), std::size_t{kVersions}) << "versions must differ, or the rest says nothing";
    std::atomic<bool> done{false};
    std::atomic<int> answered{0};
    std::thread callers([&] {
      InThreads(3, [&](int) {
        for (int i = 0; !done.load(); ++i) {
          const UnaryAnswer answer = CallUnary(port, {.method = kAttend}, AttendBy("a"));
          if (answer.ending.status.ok()) {
            EXPECT_EQ(right.count(WithoutReceipt(*answer.response)), 1u) << "the answer of no version";
            answered.fetch_add(1);
          } else {
            EXPECT_EQ(answer.ending.status.error_code(), grpc::StatusCode::NOT_FOUND);
          }
          CallUnary(port, {.method = i % 2 == 0 ? kGet : kList}, i % 2 == 0 ? GetBy("a") : "");
        }
      });
    });
    while (answered.load() == 0) std::this_thread::yield();
    InThreads(3, [&](int thread) {
      for (int i = 0; i < 8; ++i) {
        const Ending ending = Upload(port, Named("a"), files[(thread + i) % kVersions]);
        EXPECT_TRUE(ending.status.ok()) << ending.status.error_message();
        if (thread == 0) CallUnary(port, {.method = kDelete}, DeleteBy("a"));
      }
    });
    done.store(true);
    callers.join();
  }
  EXPECT_EQ(TemporaryFiles(), 0);
}

// Each upload ends in its own way, all at the same time.
TEST_P(LayerThreads, UploadsEndInEveryWay) {
  const std::string file = File(0);
  std::atomic<int> made{0}, cancelled{0}, invalid{0};
  const auto enough = [&] { return made.load() > 0 && cancelled.load() > 0 && invalid.load() > 0; };
  {
    LayerEngine engine({.data_dir = data_dir(), .max_uploads = 3});
    const int port = engine.port();
    InThreads(5, [&](int thread) {
      for (int i = 0; i < 12 || (i < 1000 && !enough()); ++i) {
        const std::string name = "l" + std::to_string(thread);
        ClientCall call(port, {.method = kCreate});
        switch ((thread + i) % 6) {
          case 0:  // Whole.
            SendUpload(call, Named(name), file);
            call.HalfClose();
            break;
          case 1:  // Cancelled in the middle.
            SendUpload(call, Named(name), file);
            call.Cancel();
            break;
          case 2:  // Cancelled while the layer is made.
            SendUpload(call, Named(name), file);
            call.HalfClose();
            std::this_thread::sleep_for(std::chrono::microseconds(300 * (i % 12)));
            call.Cancel();
            break;
          case 3:  // No layer.
            SendUpload(call, Named(name), std::string(60'000, 'x'));
            call.HalfClose();
            break;
          case 4:  // No header.
            for (int piece = 0; piece < 5 && call.Send(Chunk(std::string(1000, 'x'))); ++piece) {
            }
            break;
          default:  // Made by the server.
            v1::CreateLayerHeader header = Named(name);
            header.clear_config();
            header.mutable_init()->set_embed_dim(32);
            call.Send(Header(header));
            call.HalfClose();
            break;
        }
        const grpc::StatusCode code = call.Finish().status.error_code();
        made.fetch_add(code == grpc::StatusCode::OK ? 1 : 0);
        cancelled.fetch_add(code == grpc::StatusCode::CANCELLED ? 1 : 0);
        invalid.fetch_add(code == grpc::StatusCode::INVALID_ARGUMENT ? 1 : 0);
      }
    });
    EXPECT_TRUE(enough()) << made << " were made, " << cancelled << " cancelled and " << invalid << " invalid";
  }
  EXPECT_EQ(TemporaryFiles(), 0);
}

// Those who are silent give way, and try to go on all the same.
TEST_P(LayerThreads, ASilentUploadGivesWayToAnother) {
  const std::string file = File(0);
  std::atomic<int> done{0}, evicted{0}, refused{0};
  const auto enough = [&] { return done.load() > 0 && evicted.load() > 0 && refused.load() > 0; };
  {
    LayerEngine engine({.data_dir = data_dir(), .max_uploads = 2, .patience = std::chrono::milliseconds(1)});
    InThreads(6, [&](int thread) {
      for (int i = 0; i < 15 || (i < 1000 && !enough()); ++i) {
        ClientCall call(engine.port(), {.method = kCreate});
        call.Send(Header(Named("l" + std::to_string(thread))));
        call.Send(Chunk(file.substr(0, 50'000)));
        std::this_thread::sleep_for(std::chrono::milliseconds(thread % 2 == 0 ? 3 : 0));
        call.Send(Chunk(file.substr(50'000)));
        call.HalfClose();
        const grpc::Status status = call.Finish().status;
        const std::string reason = Reason(status);
        if (status.ok()) {
          done.fetch_add(1);
        } else if (reason == "UPLOAD_TOO_SLOW") {
          evicted.fetch_add(1);
        } else {
          EXPECT_EQ(reason, "TOO_MANY_UPLOADS") << status.error_message();
          refused.fetch_add(1);
        }
      }
    });
  }
  EXPECT_TRUE(enough()) << done << " were done, " << evicted << " evicted and " << refused << " refused";
  EXPECT_EQ(TemporaryFiles(), 0);
}

TEST_P(LayerThreads, TheServerStopsInTheMiddleOfUploads) {
  const std::string file = File(0);
  for (int round = 0; round < 6; ++round) {
    LayerEngine engine({.data_dir = data_dir()});
    std::thread drains([&engine, round] {
      std::this_thread::sleep_for(std::chrono::milliseconds(4 * round));
      engine.engine().Drain(round % 3 == 0 ? absl::ZeroDuration() : absl::Seconds(10));
    });
    InThreads(3, [&](int thread) {
      for (grpc::Status status; status.ok();) {
        status = Upload(engine.port(), Named("l" + std::to_string(thread)), file).status;
        EXPECT_THAT(status.error_code(), AnyOf(grpc::StatusCode::OK, grpc::StatusCode::UNAVAILABLE))
            << status.error_message();
      }
    });
    drains.join();
  }
  EXPECT_EQ(TemporaryFiles(), 0);
}

}  // namespace
}  // namespace attend::testing
