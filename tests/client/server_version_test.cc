// A server of version 0.1 ignores what version 0.2 brought: no client takes its answer for the one that it asked for.
// The server is a fake that, as the real one, knows nothing of receipts, EstimateCost and newer fields.
#include "client/lib/server_version.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attend/v1/layer_service.grpc.pb.h"
#include "client/lib/attend_stream.h"
#include "client/lib/client.h"
#include "client/lib/layer_client.h"

namespace attend::client {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using ::testing::AllOf;
using ::testing::HasSubstr;

const CallOptions kCall(absl::Seconds(20));

struct OldServer : v1::AttentionService::Service, v1::LayerService::Service {
  explicit OldServer(bool gives_receipts = false, absl::Duration takes = absl::ZeroDuration())
      : receipts(gives_receipts), work(takes) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(static_cast<v1::AttentionService::Service*>(this));
    builder.RegisterService(static_cast<v1::LayerService::Service*>(this));
    server = builder.BuildAndStart();
    endpoint = "127.0.0.1:" + std::to_string(port);
  }
  ~OldServer() override { server->Shutdown(std::chrono::system_clock::now()); }

  template <typename Response>
  void Answer(Response* response) {
    absl::SleepFor(work);
    response->mutable_output()->add_shape(1);
    if (receipts) response->mutable_receipt()->set_server_version("0.2.0");
  }

  grpc::Status Attend(grpc::ServerContext*, const v1::AttendRequest*, v1::AttendResponse* response) override {
    Answer(response);
    return grpc::Status::OK;
  }
  grpc::Status ScaledDotProductAttention(grpc::ServerContext*, const v1::ScaledDotProductAttentionRequest* request,
                                         v1::ScaledDotProductAttentionResponse* response) override {
    Answer(response);
    if (request->has_query()) return {grpc::INVALID_ARGUMENT, "query is wrong"};
    return grpc::Status::OK;
  }
  grpc::Status EstimateCost(grpc::ServerContext*, const v1::EstimateCostRequest*, v1::EstimateCostResponse*) override {
    absl::SleepFor(work);
    return {receipts ? grpc::INVALID_ARGUMENT : grpc::UNIMPLEMENTED, "EstimateCost"};
  }
  grpc::Status StreamAttend(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::StreamAttendResponse, v1::StreamAttendRequest>* stream) override {
    v1::StreamAttendRequest request;
    while (stream->Read(&request)) {
      v1::StreamAttendResponse response;
      response.set_id(request.id());
      if (request.has_scaled_dot_product_attention() && receipts) {
        Answer(response.mutable_scaled_dot_product_attention());
      } else if (request.has_scaled_dot_product_attention()) {
        response.mutable_status()->set_code(grpc::INVALID_ARGUMENT);
      } else {
        Answer(response.mutable_attend());
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status GetServerInfo(grpc::ServerContext* context, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    NoteTimeLeft(*context);
    absl::SleepFor(work);
    response->set_version("0.1.0");
    return grpc::Status::OK;
  }
  grpc::Status CreateLayer(grpc::ServerContext* context, grpc::ServerReader<v1::CreateLayerRequest>* reader,
                           v1::CreateLayerResponse* response) override {
    NoteTimeLeft(*context);
    absl::SleepFor(work);
    ++uploads;
    v1::CreateLayerRequest request;
    while (reader->Read(&request)) {
    }
    response->mutable_layer()->set_name("a");
    return grpc::Status::OK;
  }

  // Of a second method, which another one of the client's call came before.
  void NoteTimeLeft(const grpc::ServerContext& context) {
    const absl::Duration left = absl::FromChrono(context.deadline()) - absl::Now();
    const absl::MutexLock lock(&mu);
    most_time_left = std::max(most_time_left, left);
  }

  absl::Mutex mu;
  absl::Duration most_time_left ABSL_GUARDED_BY(mu) = absl::ZeroDuration();
  const bool receipts;
  const absl::Duration work;  // Of each method.
  std::atomic<int> uploads = 0;
  std::unique_ptr<grpc::Server> server;
  std::string endpoint;
};

Client Connect(const OldServer& server) { return *Client::Connect({.endpoints = {server.endpoint}}); }

void ExpectNames(const absl::Status& status, const std::string& field) {
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("0.1.0"), HasSubstr("`" + field + "`")));
}

TEST(ServerVersion, AnAnswerThatIgnoredAFieldIsAnError) {
  OldServer server;
  const Client client = Connect(server);
  v1::AttendRequest request;
  request.mutable_options()->set_scale(0.3);
  ExpectNames(client.Attend(request, kCall).status(), "options.scale");
  v1::ScaledDotProductAttentionRequest sdpa;
  sdpa.set_layout(v1::TENSOR_LAYOUT_BTHE);
  ExpectNames(client.ScaledDotProductAttention(sdpa, kCall).status(), "layout");
}

TEST(ServerVersion, ARefusalByAnOlderServerSaysThatItIsOlder) {
  v1::ScaledDotProductAttentionRequest request;
  request.mutable_query();
  request.set_layout(v1::TENSOR_LAYOUT_BTHE);
  OldServer server;
  const absl::Status status = Connect(server).ScaledDotProductAttention(request, kCall).status();
  ExpectNames(status, "layout");
  EXPECT_THAT(std::string(status.message()), HasSubstr("query is wrong"));
  request.clear_layout();
  EXPECT_TRUE(absl::IsInvalidArgument(Connect(server).ScaledDotProductAttention(request, kCall).status()));
  OldServer today(/*gives_receipts=*/true);
  request.set_layout(v1::TENSOR_LAYOUT_BTHE);
  EXPECT_TRUE(absl::IsInvalidArgument(Connect(today).ScaledDotProductAttention(request, kCall).status()));
}

TEST(ServerVersion, WhatItKnowsIsAnswered) {
  OldServer server;
  const Client client = Connect(server);
  v1::AttendRequest request;
  request.set_position_offset(5);
  v1::AttentionOptions& options = *request.mutable_options();  // Reflection, because the field is deprecated.
  options.GetReflection()->SetFloat(&options, options.GetDescriptor()->FindFieldByName("float_scale"), 0.3F);
  request.mutable_options()->set_top_k(2);
  EXPECT_TRUE(client.Attend(request, kCall).ok());
  EXPECT_TRUE(client.ScaledDotProductAttention({}, kCall).ok());
}

TEST(ServerVersion, AReceiptSaysThatAllWasRead) {
  OldServer server(/*gives_receipts=*/true);
  const Client client = Connect(server);
  v1::AttendRequest request;
  request.mutable_options()->set_scale(0.3);
  EXPECT_TRUE(client.Attend(request, kCall).ok());
}

TEST(ServerVersion, EachRequestOfAStreamIsLookedAt) {
  for (const bool receipts : {false, true}) {
    OldServer server(receipts);
    const Client client = Connect(server);
    const auto stream = client.StreamAttend(kCall);
    ASSERT_TRUE(stream.ok()) << stream.status();
    for (const std::int64_t id : {7, 8}) {
      v1::AttendRequest request;
      if (id == 8) request.mutable_options()->set_precision(v1::PRECISION_EXACT);
      ASSERT_TRUE((*stream)->Send(id, std::move(request)).ok());
    }
    ASSERT_TRUE((*stream)->Send(9, v1::ScaledDotProductAttentionRequest()).ok());
    (*stream)->CloseSending();
    std::map<std::int64_t, absl::Status> statuses;
    while (const std::optional<StreamResult> result = (*stream)->Receive()) {
      statuses[result->id] = (result->id == 9 ? result->sdpa_response.status() : result->response.status());
    }
    EXPECT_TRUE((*stream)->Finish().ok());
    ASSERT_EQ(statuses.size(), 3u);
    EXPECT_TRUE(statuses[7].ok()) << statuses[7];
    if (receipts) {
      EXPECT_TRUE(statuses[8].ok()) << statuses[8];
      EXPECT_TRUE(statuses[9].ok()) << statuses[9];
    } else {
      ExpectNames(statuses[8], "attend.options.precision");
      ExpectNames(statuses[9], "scaled_dot_product_attention");
    }
  }
}

TEST(ServerVersion, AMethodThatItDoesNotKnowIsNamed) {
  OldServer server;
  ExpectNames(Connect(server).EstimateCost({}, kCall).status(), "EstimateCost");
}

TEST(ServerVersion, TheLookAtTheVersionEndsAtTheCallsDeadline) {
  const absl::Duration timeout = absl::Seconds(4);
  v1::AttendRequest request;
  request.mutable_options()->set_scale(0.3);
  v1::CreateLayerHeader header;
  header.mutable_config()->set_norm_epsilon(0.1);
  v1::CreateLayerHeader seeded = header;
  seeded.mutable_init()->set_seed(1);
  // Two methods of 3 s each: with a deadline of its own, the second would have 4 s left.
  OldServer old(/*gives_receipts=*/false, absl::Seconds(3)), today(/*gives_receipts=*/true, absl::Seconds(3));
  const Client to_old = Connect(old), to_today = Connect(today);
  const LayerClient layers(to_today);
  const std::function<absl::Status()> calls[] = {
      [&] { return to_old.Attend(request, CallOptions(timeout)).status(); },
      [&] { return to_old.EstimateCost({}, CallOptions(timeout)).status(); },
      [&] { return layers.CreateFromBytes(header, "bytes", UploadOptions(timeout)).status(); },
      [&] { return layers.CreateSeeded(seeded, CallOptions(timeout)).status(); },
  };
  std::vector<std::thread> threads;
  for (const auto& call : calls) {
    threads.emplace_back([&call] { EXPECT_FALSE(call().ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (OldServer* server : {&old, &today}) {
    const absl::MutexLock lock(&server->mu);
    EXPECT_LT(server->most_time_left, absl::Seconds(1.5));
  }
}

TEST(ServerVersion, ALayerThatWouldBeAnotherIsNotUploaded) {
  OldServer server;
  const Client client = Connect(server);
  const LayerClient layers(client);
  v1::CreateLayerHeader header;
  header.mutable_config()->set_norm_epsilon(0.1);
  ExpectNames(layers.CreateFromBytes(header, "bytes", UploadOptions(absl::Seconds(20))).status(),
              "header.config.norm_epsilon");
  header.mutable_init();
  header.mutable_config()->mutable_options()->set_softcap(3);
  header.mutable_config()->clear_norm_epsilon();
  ExpectNames(layers.CreateSeeded(header, kCall).status(), "header.config.options.softcap");
  EXPECT_EQ(server.uploads, 0);
  header.mutable_config()->clear_options();
  EXPECT_TRUE(layers.CreateSeeded(header, kCall).ok());
  EXPECT_EQ(server.uploads, 1);
}

// The messages of version 0.1 (tests/data/attend_v1_0_1.binpb), as its own descriptors.
class Version01 {
 public:
  Version01() {
    std::ifstream file(ATTEND_TEST_DATA "/attend_v1_0_1.binpb", std::ios::binary);
    google::protobuf::FileDescriptorSet set;
    EXPECT_TRUE(set.ParseFromIstream(&file));
    for (const auto& proto : set.file()) EXPECT_NE(pool_.BuildFile(proto), nullptr) << proto.name();
  }
  bool Has(const FieldDescriptor& field) const {
    const Descriptor* const type = pool_.FindMessageTypeByName(field.containing_type()->full_name());
    return type != nullptr && type->FindFieldByNumber(field.number()) != nullptr;
  }

 private:
  google::protobuf::DescriptorPool pool_;
};

void SetField(Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return repeated ? reflection.AddInt32(&message, &field, 1) : reflection.SetInt32(&message, &field, 1);
    case FieldDescriptor::CPPTYPE_INT64:
      return repeated ? reflection.AddInt64(&message, &field, 1) : reflection.SetInt64(&message, &field, 1);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return repeated ? reflection.AddFloat(&message, &field, 1) : reflection.SetFloat(&message, &field, 1);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return repeated ? reflection.AddDouble(&message, &field, 1) : reflection.SetDouble(&message, &field, 1);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.SetBool(&message, &field, true);
    case FieldDescriptor::CPPTYPE_ENUM:
      return repeated ? reflection.AddEnumValue(&message, &field, 1) : reflection.SetEnumValue(&message, &field, 1);
    case FieldDescriptor::CPPTYPE_STRING:
      return repeated ? reflection.AddString(&message, &field, "x") : reflection.SetString(&message, &field, "x");
    default: reflection.MutableMessage(&message, &field);
  }
}

// Sets each field below `part` of `request` alone, and asks.
void CheckEveryField(const Version01& old, Message& request, Message& part) {
  const Descriptor& type = *part.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    SetField(part, field);
    EXPECT_EQ(internal::FieldUnknownTo01(request).empty(), old.Has(field)) << field.full_name();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_repeated() && old.Has(field)) {
      CheckEveryField(old, request, *part.GetReflection()->MutableMessage(&part, &field));
    }
    part.GetReflection()->ClearField(&part, &field);
  }
}

TEST(ServerVersion, FieldsOfVersion01AreToldFromNewerOnes) {
  const Version01 old;
  v1::AttendRequest attend;
  CheckEveryField(old, attend, attend);
  v1::ScaledDotProductAttentionRequest sdpa;
  CheckEveryField(old, sdpa, sdpa);
  v1::StreamAttendRequest stream;
  CheckEveryField(old, stream, stream);
  v1::CreateLayerHeader header;
  CheckEveryField(old, header, header);
}

}  // namespace
}  // namespace attend::client
