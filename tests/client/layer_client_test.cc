// Guards what the client library promises of layers: uploads that arrive whole, in chunks and in little memory, whose
// refusals are the server's own; lists over all pages; which calls are repeated.
#include "client/lib/layer_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/lib/server_error.h"
#include "tests/client/fake_layer_server.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const CallOptions kCall(absl::Seconds(20));
constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;

LayerClient Connect(const FakeLayerServer& server) {
  return LayerClient(*Client::Connect({.endpoints = {server.endpoint()}}));
}

UploadOptions InChunksOf(std::int64_t bytes) {
  UploadOptions options(absl::Seconds(60));
  options.chunk_bytes = bytes;
  return options;
}

v1::CreateLayerHeader HeaderOf(const std::string& name) {
  v1::CreateLayerHeader header;
  header.set_name(name);
  return header;
}

// What a server was sent.
struct Received {
  v1::CreateLayerHeader header;
  std::vector<std::string> chunks;

  std::string bytes() const {
    std::string all;
    for (const std::string& chunk : chunks) all += chunk;
    return all;
  }
};

FakeLayers Keep(Received* received) {
  return {.create = [received](grpc::ServerContext*, grpc::ServerReader<v1::CreateLayerRequest>* reader,
                               v1::CreateLayerResponse* response) {
    v1::CreateLayerRequest message;
    while (reader->Read(&message)) {
      if (message.has_header()) {
        EXPECT_TRUE(received->chunks.empty()) << "the header comes first";
        received->header = message.header();
      } else {
        received->chunks.push_back(message.chunk());
      }
    }
    response->mutable_layer()->set_name(received->header.name());
    return grpc::Status::OK;
  }};
}

TEST(LayerClient, UploadsBytesInChunksBehindTheHeader) {
  Received received;
  FakeLayerServer server(Keep(&received));
  v1::CreateLayerHeader header = HeaderOf("minilm/0");
  header.set_prefix("encoder.layer.0.");
  header.mutable_config()->set_num_heads(12);
  const LayerClient::Created created = Connect(server).CreateFromBytes(header, "0123456789", InChunksOf(4));
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->response.layer().name(), "minilm/0");
  EXPECT_EQ(received.header.SerializeAsString(), header.SerializeAsString());
  EXPECT_THAT(received.chunks, ElementsAre("0123", "4567", "89"));
}

TEST(LayerClient, UploadsAFileAndAStreamFromWhereItStands) {
  Received received;
  FakeLayerServer server(Keep(&received));
  const std::string path = std::filesystem::temp_directory_path() / ("attend-upload-" + std::to_string(getpid()));
  std::string content(3 * kMebibyte + 17, 'x');
  content[kMebibyte] = '\0';
  std::ofstream(path, std::ios::binary) << content;
  std::vector<std::int64_t> sent;
  UploadOptions options(absl::Seconds(60));
  options.on_progress = [&](const UploadProgress& progress) {
    EXPECT_EQ(progress.total_bytes, content.size());
    sent.push_back(progress.sent_bytes);
    return true;
  };
  ASSERT_TRUE(Connect(server).CreateFromFile(HeaderOf("a"), path, options).ok());
  EXPECT_EQ(received.bytes(), content);
  EXPECT_THAT(sent, ElementsAre(kMebibyte, 2 * kMebibyte, 3 * kMebibyte, 3 * kMebibyte + 17));
  std::filesystem::remove(path);

  received.chunks.clear();
  std::istringstream in("skipped0123456789");
  in.seekg(7);
  ASSERT_TRUE(Connect(server).Create(HeaderOf("a"), in, InChunksOf(10)).ok());
  EXPECT_THAT(received.chunks, ElementsAre("0123456789"));
}

TEST(LayerClient, SendsNoMessageBeyondTheClientsLimit) {
  FakeLayerServer server({.create = [](grpc::ServerContext*, grpc::ServerReader<v1::CreateLayerRequest>* reader,
                                       v1::CreateLayerResponse*) {
    for (v1::CreateLayerRequest message; reader->Read(&message);) {
    }
    return grpc::Status::OK;
  }});
  const LayerClient layers(*Client::Connect({.endpoints = {server.endpoint()}, .max_message_bytes = 1000}));
  const std::string bytes(2000, 'x');
  EXPECT_TRUE(layers.CreateFromBytes(HeaderOf("a"), bytes, InChunksOf(900)).ok());
  v1::CreateLayerHeader seeded = HeaderOf(bytes);
  seeded.mutable_init();
  v1::ListLayersRequest list;
  list.set_page_token(bytes);
  v1::DeleteLayerRequest remove;
  remove.set_name(bytes);
  for (const absl::Status& status : {layers.CreateFromBytes(HeaderOf("a"), bytes, InChunksOf(1500)).status(),
                                     layers.CreateFromBytes(HeaderOf(bytes), bytes, InChunksOf(900)).status(),
                                     layers.CreateSeeded(seeded, kCall).status(), layers.Get(bytes, kCall).status(),
                                     layers.List(list, kCall).status(), layers.Delete(remove, kCall).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(status.message(), HasSubstr("this client sends at most 1000 (max_message_bytes)"));
  }
}

TEST(LayerClient, AsksForSeededWeightsWithoutBytes) {
  Received received;
  FakeLayerServer server(Keep(&received));
  v1::CreateLayerHeader header = HeaderOf("seeded");
  EXPECT_THAT(Connect(server).CreateSeeded(header, kCall).status().message(), HasSubstr("header.init is not set"));
  header.mutable_init()->set_seed(42);
  header.mutable_init()->set_embed_dim(64);
  ASSERT_TRUE(Connect(server).CreateSeeded(header, kCall).ok());
  EXPECT_EQ(received.header.init().seed(), 42);
  EXPECT_TRUE(received.chunks.empty());
  const absl::Status mixed = Connect(server).CreateFromBytes(header, "x", InChunksOf(4)).status();
  EXPECT_EQ(mixed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server.calls(), 1);
}

TEST(LayerClient, AnEarlyRefusalIsTheServersOwnAndStopsTheUpload) {
  FakeLayerServer server({.create = [](grpc::ServerContext* context, grpc::ServerReader<v1::CreateLayerRequest>* reader,
                                       v1::CreateLayerResponse*) {
    v1::CreateLayerRequest message;
    reader->Read(&message);
    context->AddTrailingMetadata("server-timing", "receive;dur=0.5");
    return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "there is a layer 'a'; set replace");
  }});
  std::int64_t sent = 0;
  UploadOptions options = InChunksOf(kMebibyte);
  options.on_progress = [&](const UploadProgress& progress) {
    sent = progress.sent_bytes;
    return true;
  };
  const std::string bytes(static_cast<std::size_t>(64 * kMebibyte), 'x');
  const absl::Status status = Connect(server).CreateFromBytes(HeaderOf("a"), bytes, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(status.message(), "there is a layer 'a'; set replace");
  ASSERT_EQ(GetServerError(status).server_timing.size(), 1u);
  EXPECT_LT(sent, 64 * kMebibyte) << "what nobody wants is not sent";
}

TEST(LayerClient, AnAnswerBeforeTheLastByteIsNoSuccess) {
  FakeLayerServer server({.create = [](grpc::ServerContext*, grpc::ServerReader<v1::CreateLayerRequest>*,
                                       v1::CreateLayerResponse*) { return grpc::Status::OK; }});
  const std::string bytes(static_cast<std::size_t>(64 * kMebibyte), 'x');
  const absl::Status status = Connect(server).CreateFromBytes(HeaderOf("a"), bytes, InChunksOf(kMebibyte)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
}

TEST(LayerClient, GivingUpCancelsTheServersCall) {
  std::atomic<bool> whole = true;
  std::atomic<bool> ended = false;
  FakeLayerServer server({.create = [&](grpc::ServerContext* context,
                                        grpc::ServerReader<v1::CreateLayerRequest>* reader, v1::CreateLayerResponse*) {
    v1::CreateLayerRequest message;
    while (reader->Read(&message)) {
    }
    while (!context->IsCancelled() && !ended) absl::SleepFor(absl::Milliseconds(1));
    whole = !context->IsCancelled();
    ended = true;
    return grpc::Status::OK;
  }});
  UploadOptions options = InChunksOf(2);
  options.on_progress = [](const UploadProgress& progress) { return progress.sent_bytes < 4; };
  const absl::Status status = Connect(server).CreateFromBytes(HeaderOf("a"), "0123456789", options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(status.message(), "the upload was given up");
  while (!ended) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_FALSE(whole);
}

TEST(LayerClient, AStreamThatFailsIsNoUpload) {
  Received received;
  FakeLayerServer server(Keep(&received));
  struct Broken : std::stringbuf {
    std::streamsize xsgetn(char*, std::streamsize) override { throw std::ios_base::failure("the disk is gone"); }
  } broken;
  std::istream in(&broken);
  EXPECT_EQ(Connect(server).Create(HeaderOf("a"), in, InChunksOf(4)).status().code(), absl::StatusCode::kDataLoss);
  for (const char* path : {"/nonexistent/file", "/"}) {
    const absl::Status status = Connect(server).CreateFromFile(HeaderOf("a"), path, InChunksOf(4)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_FALSE(AnsweredByServer(status));
  }
}

TEST(LayerClient, ChunksOutOfTheirRangeAreRefused) {
  Received received;
  FakeLayerServer server(Keep(&received));
  for (const std::int64_t bytes : {std::int64_t{0}, std::int64_t{-1}, (std::int64_t{1} << 30) + 1}) {
    const absl::Status status = Connect(server).CreateFromBytes(HeaderOf("a"), "x", InChunksOf(bytes)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("chunk_bytes"));
  }
  EXPECT_EQ(server.calls(), 0);
}

TEST(LayerClient, TheDeadlineCoversTheWholeUpload) {
  std::atomic<bool> ended = false;
  FakeLayerServer server({.create = [&](grpc::ServerContext* context, grpc::ServerReader<v1::CreateLayerRequest>*,
                                        v1::CreateLayerResponse*) {
    while (!context->IsCancelled() && !ended) absl::SleepFor(absl::Milliseconds(1));
    return grpc::Status::OK;
  }});
  UploadOptions options(absl::Milliseconds(200));
  const std::string bytes(static_cast<std::size_t>(64 * kMebibyte), 'x');
  EXPECT_EQ(Connect(server).CreateFromBytes(HeaderOf("a"), bytes, options).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  ended = true;
}

// A stream of `size` zeros that nobody has to store.
class Zeros : public std::streambuf {
 public:
  explicit Zeros(std::int64_t size) : left_(size) {}

 private:
  std::streamsize xsgetn(char* out, std::streamsize size) override {
    const std::streamsize taken = std::min<std::streamsize>(size, left_);
    std::fill_n(out, taken, '\0');
    left_ -= taken;
    return taken;
  }
  int_type underflow() override { return traits_type::eof(); }

  std::int64_t left_;
};

std::int64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return 1024 * std::stoll(line.substr(field.size() + 1));
  }
  return 0;
}

TEST(LayerClient, AnUploadIsNotKeptInMemory) {
#ifdef __SANITIZE_ADDRESS__
  constexpr int kTimes = 2;  // It keeps 256 MiB of what is freed, and gives back what the tests before this one freed.
#else
  constexpr int kTimes = 1;
#endif
  std::int64_t bytes = 0;
  FakeLayerServer server({.create = [&](grpc::ServerContext*, grpc::ServerReader<v1::CreateLayerRequest>* reader,
                                        v1::CreateLayerResponse*) {
    v1::CreateLayerRequest message;
    while (reader->Read(&message)) bytes += static_cast<std::int64_t>(message.chunk().size());
    return grpc::Status::OK;
  }});
  std::ofstream("/proc/self/clear_refs") << "5";  // Starts the peak anew.
  const std::int64_t before = StatusBytes("VmHWM");
  Zeros zeros(kTimes * 512 * kMebibyte);
  std::istream in(&zeros);
  ASSERT_TRUE(Connect(server).Create(HeaderOf("a"), in, UploadOptions(kTimes * absl::Minutes(2))).ok());
  EXPECT_EQ(bytes, kTimes * 512 * kMebibyte);
  EXPECT_LT(StatusBytes("VmHWM") - before, kTimes * 256 * kMebibyte) << "client and server together";
}

v1::ListLayersResponse PageOf(const std::vector<std::string>& names, const std::string& next) {
  v1::ListLayersResponse page;
  for (const std::string& name : names) page.add_layers()->set_name(name);
  page.set_next_page_token(next);
  return page;
}

absl::StatusOr<std::vector<std::string>> AllNames(const LayerPages& pages) {
  std::vector<std::string> names;
  for (const absl::StatusOr<v1::ListLayersResponse>& page : pages) {
    if (!page.ok()) return page.status();
    for (const v1::Layer& layer : page->layers()) names.push_back(layer.name());
  }
  return names;
}

TEST(LayerClient, PagesAreFetchedToTheLastOne) {
  FakeLayerServer server({.list = [](const v1::ListLayersRequest& request, v1::ListLayersResponse* response) {
    EXPECT_EQ(request.page_size(), 2);
    EXPECT_EQ(request.name_prefix(), "p/");
    if (request.page_token().empty()) *response = PageOf({"p/a", "p/b"}, "b");
    if (request.page_token() == "b") *response = PageOf({}, "c");  // An empty page is not the last one.
    if (request.page_token() == "c") *response = PageOf({"p/d"}, "");
    return grpc::Status::OK;
  }});
  v1::ListLayersRequest request;
  request.set_page_size(2);
  request.set_name_prefix("p/");
  const auto names = AllNames(Connect(server).Pages(request, kCall));
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ElementsAre("p/a", "p/b", "p/d"));
  EXPECT_EQ(server.calls(), 3);
}

TEST(LayerClient, AnErrorIsTheLastPage) {
  FakeLayerServer server({.list = [](const v1::ListLayersRequest& request, v1::ListLayersResponse* response) {
    if (!request.page_token().empty()) return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "stale token");
    *response = PageOf({"a"}, "stale");
    return grpc::Status::OK;
  }});
  EXPECT_EQ(AllNames(Connect(server).Pages({}, kCall)).status().message(), "stale token");
}

TEST(LayerClient, ATokenThatRepeatsItselfEndsTheList) {
  FakeLayerServer server({.list = [](const v1::ListLayersRequest&, v1::ListLayersResponse* response) {
    *response = PageOf({"a"}, "again");
    return grpc::Status::OK;
  }});
  EXPECT_EQ(AllNames(Connect(server).Pages({}, kCall)).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(server.calls(), 2);
}

TEST(LayerClient, GetAndListAreRepeatedOnUnavailableUploadsAndDeleteAreNot) {
  const auto calls_of = [](const auto& call) {
    const grpc::Status unavailable(grpc::StatusCode::UNAVAILABLE, "not now");
    // One server for each: failures of one use up the repeats of all calls of the same name.
    FakeLayerServer server({
        .create = [&](auto*, auto*, auto*) { return unavailable; },
        .get = [&](const auto&, auto*) { return unavailable; },
        .list = [&](const auto&, auto*) { return unavailable; },
        .remove = [&](const auto&, auto*) { return unavailable; },
    });
    EXPECT_EQ(call(Connect(server)).status().code(), absl::StatusCode::kUnavailable);
    return server.calls();
  };
  EXPECT_EQ(calls_of([](const LayerClient& layers) { return layers.Get("a", kCall); }), 4);
  EXPECT_EQ(calls_of([](const LayerClient& layers) { return layers.List({}, kCall); }), 4);
  EXPECT_EQ(calls_of([](const LayerClient& layers) { return layers.Delete({}, kCall); }), 1);
  EXPECT_EQ(calls_of([](const LayerClient& l) { return l.CreateFromBytes(HeaderOf("a"), "x", InChunksOf(4)); }), 1);
}

TEST(LayerClient, GetAndDeleteSayWhatTheyAreGiven) {
  FakeLayerServer server({
      .get =
          [](const v1::GetLayerRequest& request, v1::GetLayerResponse* response) {
            response->mutable_layer()->set_name(request.name());
            return grpc::Status::OK;
          },
      .remove =
          [](const v1::DeleteLayerRequest& request, v1::DeleteLayerResponse*) {
            return request.etag() == "7" ? grpc::Status::OK : grpc::Status(grpc::StatusCode::ABORTED, "another etag");
          },
  });
  EXPECT_EQ(Connect(server).Get("minilm/0", kCall)->response.layer().name(), "minilm/0");
  v1::DeleteLayerRequest request;
  request.set_etag("6");
  EXPECT_EQ(Connect(server).Delete(request, kCall).status().code(), absl::StatusCode::kAborted);
  request.set_etag("7");
  EXPECT_TRUE(Connect(server).Delete(request, kCall).ok());
  EXPECT_EQ(Connect(server).Get("a", CallOptions(absl::ZeroDuration())).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace attend::client
