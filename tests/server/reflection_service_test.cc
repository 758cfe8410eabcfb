// Reflection: both versions, and answers from which a client can build every service without a .proto file.
#include "server/services/reflection_service.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/descriptor_database.h>
#include <grpc/reflection/v1/reflection.grpc.pb.h>
#include <grpc/reflection/v1alpha/reflection.grpc.pb.h>
#include <gtest/gtest.h>

#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

struct V1 {
  using Service = grpc::reflection::v1::ServerReflection;
  using Request = grpc::reflection::v1::ServerReflectionRequest;
  using Response = grpc::reflection::v1::ServerReflectionResponse;
};

struct V1Alpha {
  using Service = grpc::reflection::v1alpha::ServerReflection;
  using Request = grpc::reflection::v1alpha::ServerReflectionRequest;
  using Response = grpc::reflection::v1alpha::ServerReflectionResponse;
};

template <typename Version>
class ReflectionServiceTest : public ::testing::Test {
 protected:
  using Request = typename Version::Request;
  using Response = typename Version::Response;

  // All questions on one stream, as clients do.
  std::vector<Response> Ask(const std::vector<Request>& requests) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    auto stub = Version::Service::NewStub(server_.channel());
    auto stream = stub->ServerReflectionInfo(&context);
    std::vector<Response> responses;
    for (const Request& request : requests) {
      EXPECT_TRUE(stream->Write(request));
      Response response;
      EXPECT_TRUE(stream->Read(&response));
      responses.push_back(response);
    }
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return responses;
  }

  TestServer server_;
};

using Versions = ::testing::Types<V1, V1Alpha>;
TYPED_TEST_SUITE(ReflectionServiceTest, Versions);

TYPED_TEST(ReflectionServiceTest, ListsEveryService) {
  typename TypeParam::Request request;
  request.set_list_services("");
  const auto responses = this->Ask({request});
  std::vector<std::string> names;
  for (const auto& service : responses.at(0).list_services_response().service()) names.push_back(service.name());
  EXPECT_THAT(names,
              UnorderedElementsAre("attend.v1.AttentionService", "attend.v1.LayerService", "grpc.health.v1.Health",
                                   "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"));
}

TYPED_TEST(ReflectionServiceTest, AClientCanBuildEveryServiceFromTheAnswers) {
  typename TypeParam::Request list;
  list.set_list_services("");
  const auto services = this->Ask({list}).at(0).list_services_response().service();
  ASSERT_FALSE(services.empty());
  for (const auto& service : services) {
    typename TypeParam::Request request;
    request.set_file_containing_symbol(service.name());
    const auto response = this->Ask({request}).at(0);
    google::protobuf::SimpleDescriptorDatabase files;
    for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
      google::protobuf::FileDescriptorProto file;
      ASSERT_TRUE(file.ParseFromString(bytes));
      EXPECT_TRUE(files.Add(file)) << file.name() << " came twice";
    }
    google::protobuf::DescriptorPool pool(&files);
    const auto* built = pool.FindServiceByName(service.name());
    ASSERT_NE(built, nullptr) << service.name();
    EXPECT_GT(built->method_count(), 0);
  }
}

TYPED_TEST(ReflectionServiceTest, FindsFilesBySymbolAndByName) {
  std::vector<typename TypeParam::Request> requests(4);
  requests[0].set_file_by_filename("attend/v1/tensor.proto");
  requests[1].set_file_containing_symbol("attend.v1.Tensor");
  requests[2].set_file_containing_symbol("attend.v1.AttentionService.Attend");
  requests[3].set_file_containing_symbol("attend.v1.AttentionOptions.scale");
  const auto responses = this->Ask(requests);
  const std::vector<std::string> expected = {"attend/v1/tensor.proto", "attend/v1/tensor.proto",
                                             "attend/v1/attention_service.proto", "attend/v1/attention_service.proto"};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    google::protobuf::FileDescriptorProto file;
    ASSERT_GT(responses[i].file_descriptor_response().file_descriptor_proto_size(), 0) << i;
    ASSERT_TRUE(file.ParseFromString(responses[i].file_descriptor_response().file_descriptor_proto(0)));
    EXPECT_EQ(file.name(), expected[i]);
    EXPECT_EQ(responses[i].original_request().SerializeAsString(), requests[i].SerializeAsString());
  }
}

TYPED_TEST(ReflectionServiceTest, WhatIsUnknownIsAnErrorAnswerAndTheStreamGoesOn) {
  std::vector<typename TypeParam::Request> requests(6);
  requests[0].set_file_by_filename("no.proto");
  requests[1].set_file_containing_symbol("attend.v1.Nobody");
  requests[2].mutable_file_containing_extension()->set_containing_type("attend.v1.Tensor");
  requests[2].mutable_file_containing_extension()->set_extension_number(5);
  requests[3].set_all_extension_numbers_of_type("attend.v1.Nobody");
  requests[5].set_all_extension_numbers_of_type("attend.v1.Tensor");
  const auto responses = this->Ask(requests);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(responses[i].error_response().error_code(), static_cast<int>(grpc::StatusCode::NOT_FOUND)) << i;
    EXPECT_NE(responses[i].error_response().error_message(), "") << i;
  }
  EXPECT_EQ(responses[4].error_response().error_code(), static_cast<int>(grpc::StatusCode::INVALID_ARGUMENT));
  EXPECT_EQ(responses[5].all_extension_numbers_response().base_type_name(), "attend.v1.Tensor");
  EXPECT_THAT(responses[5].all_extension_numbers_response().extension_number(), IsEmpty());
}

TEST(ReflectionTest, FindsExtensions) {
  google::protobuf::DescriptorPool pool;
  google::protobuf::FileDescriptorProto file;
  file.set_name("test.proto");
  file.set_package("test");
  auto* message = file.add_message_type();
  message->set_name("Extended");
  message->add_extension_range()->set_start(100);
  message->mutable_extension_range(0)->set_end(200);
  auto* extension = file.add_extension();
  extension->set_name("extra");
  extension->set_extendee(".test.Extended");
  extension->set_number(123);
  extension->set_type(google::protobuf::FieldDescriptorProto::TYPE_INT32);
  extension->set_label(google::protobuf::FieldDescriptorProto::LABEL_OPTIONAL);
  ASSERT_NE(pool.BuildFile(file), nullptr);

  const server::Reflection reflection({}, pool);
  grpc::reflection::v1::ServerReflectionRequest request;
  request.set_all_extension_numbers_of_type("test.Extended");
  EXPECT_THAT(reflection.Answer(request).all_extension_numbers_response().extension_number(), ElementsAre(123));
  request.mutable_file_containing_extension()->set_containing_type("test.Extended");
  request.mutable_file_containing_extension()->set_extension_number(123);
  const auto response = reflection.Answer(request);
  ASSERT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1);
  google::protobuf::FileDescriptorProto found;
  ASSERT_TRUE(found.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
  EXPECT_EQ(found.name(), "test.proto");
}

// Tools print JSON with the names that the descriptors give, and fall back to proto names.
TEST(ReflectionTest, FieldsHaveTheirJsonNames) {
  const server::Reflection reflection({}, *google::protobuf::DescriptorPool::generated_pool());
  grpc::reflection::v1::ServerReflectionRequest request;
  request.set_file_by_filename("attend/v1/tensor.proto");
  google::protobuf::FileDescriptorProto file;
  ASSERT_TRUE(file.ParseFromString(reflection.Answer(request).file_descriptor_response().file_descriptor_proto(0)));
  EXPECT_EQ(file.message_type(0).field(0).name(), "data_type");
  EXPECT_EQ(file.message_type(0).field(0).json_name(), "dataType");
}

}  // namespace
}  // namespace attend::testing
