// Responses of every type, in both forms: the types that the contract names, and the bytes that protobuf would have
// written (CallSdpa and CallAttend hold them to that).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "tests/support/decoder_cases.h"
#include "tests/support/example_requests.h"
#include "tests/support/typed_messages.h"

namespace attend::server {
namespace {

using ::testing::ElementsAre;
using SdpaRequest = v1::ScaledDotProductAttentionRequest;
using SdpaResponse = v1::ScaledDotProductAttentionResponse;

constexpr v1::DataType kNumberTypes[] = {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_FLOAT64, v1::DATA_TYPE_FLOAT16,
                                         v1::DATA_TYPE_BFLOAT16};

template <typename Request>
void AskForTop(Request& request, int k) {
  request.add_outputs(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS);
  request.mutable_options()->set_top_k(k);
}

// Every field, with query, key, value and bias of one type and the rest of 16 bits where that may be.
SdpaRequest TypedSdpaRequest(v1::DataType type) {
  SdpaRequest request = FullSdpaRequest();
  v1::AttentionOptions& options = *request.mutable_options();
  for (v1::Tensor* tensor :
       {request.mutable_query(), request.mutable_key(), request.mutable_value(), options.mutable_bias()}) {
    SetType(*tensor, type);
  }
  SetType(*options.mutable_alibi_slopes(), v1::DATA_TYPE_BFLOAT16);
  SetType(*options.mutable_sinks(), v1::DATA_TYPE_FLOAT16);
  AskForTop(request, 7);
  return request;
}

v1::AttendRequest TypedAttendRequest(v1::DataType type) {
  v1::AttendRequest request = FullAttendRequest();
  v1::AttentionLayer& layer = *request.mutable_layer();
  SetType(*request.mutable_embeddings(), type);
  SetType(*request.mutable_context(), type);
  for (v1::Linear* linear : {layer.mutable_query_projection(), layer.mutable_key_projection(),
                             layer.mutable_value_projection(), layer.mutable_output_projection()}) {
    SetType(*linear->mutable_weight(), type);
    SetType(*linear->mutable_bias(), type);
  }
  AskForTop(request, 3);
  return request;
}

v1::DataType Arithmetic(v1::DataType type) {
  return type == v1::DATA_TYPE_FLOAT64 ? v1::DATA_TYPE_FLOAT64 : v1::DATA_TYPE_FLOAT32;
}

TEST(TypedSdpaResponse, TypesAreThoseOfTheQueryAndOfTheArithmetic) {
  for (const v1::DataType type : kNumberTypes) {
    const SdpaResponse response = CallSdpa(TypedSdpaRequest(type));
    EXPECT_EQ(response.output().data_type(), type);
    EXPECT_EQ(response.attention_weights().data_type(), Arithmetic(type));
    EXPECT_EQ(response.scores().data_type(), Arithmetic(type));
    EXPECT_EQ(response.top_attention_weights().data_type(), Arithmetic(type));
    EXPECT_EQ(response.log_sum_exp().data_type(), v1::DATA_TYPE_FLOAT32);
    EXPECT_EQ(response.top_attention_indices().data_type(), v1::DATA_TYPE_INT32);
    EXPECT_THAT(Shape(response.top_attention_weights()), ElementsAre(2, 4, 3, 7));
    EXPECT_THAT(Shape(response.top_attention_indices()), ElementsAre(2, 4, 3, 7));
  }
}

TEST(TypedSdpaResponse, SlicesDoNotMatter) {
  for (const v1::DataType type : kNumberTypes) {
    const SdpaRequest request = TypedSdpaRequest(type);
    const std::string whole = CallSdpa(request).SerializeAsString();
    for (const std::size_t slice_size : {1, 3, 16, 1000}) {
      EXPECT_TRUE(CallSdpa(request, slice_size).SerializeAsString() == whole) << type << " " << slice_size;
    }
  }
}

// As values, FLOAT64 and INT32 are rounded to FLOAT32; all else is exact.
void ExpectSameNumbers(const v1::Tensor& values, const v1::Tensor& data, const std::string& what) {
  EXPECT_EQ(values.data_type(), data.data_type()) << what;
  EXPECT_EQ(Shape(values), Shape(data)) << what;
  EXPECT_TRUE(values.data().empty()) << what;
  const std::vector<double> expected = Numbers(data);
  ASSERT_EQ(values.values_size(), static_cast<int>(expected.size())) << what;
  for (int i = 0; i < values.values_size(); ++i) {
    ASSERT_EQ(values.values(i), static_cast<float>(expected[static_cast<std::size_t>(i)])) << what << " at " << i;
  }
}

template <typename Response>
void ExpectSameResponse(const Response& values, const Response& data) {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  data.GetReflection()->ListFields(data, &fields);
  for (const auto* field : fields) {
    if (field->message_type() != v1::Tensor::descriptor()) continue;  // The receipt.
    const auto tensor = [field](const Response& response) -> const v1::Tensor& {
      return static_cast<const v1::Tensor&>(response.GetReflection()->GetMessage(response, field));
    };
    ExpectSameNumbers(tensor(values), tensor(data), field->name());
  }
}

// Moves the first tensor of a request, which decides the form, from `data` to `values`.
void MoveToValues(v1::Tensor& tensor) {
  for (const double number : Numbers(tensor)) tensor.add_values(static_cast<float>(number));
  tensor.clear_data();
}

TEST(TypedSdpaResponse, ValuesHoldTheNumbersOfData) {
  for (const v1::DataType type : kNumberTypes) {
    SdpaRequest request = TypedSdpaRequest(type);
    const SdpaResponse data = CallSdpa(request);
    MoveToValues(*request.mutable_query());
    ExpectSameResponse(CallSdpa(request, 5), data);
  }
}

TEST(TypedAttendResponse, TypesAreThoseOfTheEmbeddingsAndOfTheArithmetic) {
  for (const v1::DataType type : kNumberTypes) {
    v1::AttendRequest request = TypedAttendRequest(type);
    const v1::AttendResponse data = CallAttend(request, 13);
    for (const v1::Tensor* tensor : {&data.output(), &data.query(), &data.key(), &data.value()}) {
      EXPECT_EQ(tensor->data_type(), type);
    }
    for (const v1::Tensor* tensor : {&data.attention_weights(), &data.scores(), &data.top_attention_weights()}) {
      EXPECT_EQ(tensor->data_type(), Arithmetic(type));
    }
    EXPECT_EQ(data.log_sum_exp().data_type(), v1::DATA_TYPE_FLOAT32);
    EXPECT_THAT(Shape(data.top_attention_indices()), ElementsAre(2, 3, 3));
    MoveToValues(*request.mutable_embeddings());
    ExpectSameResponse(CallAttend(request), data);
  }
}

TEST(RaggedResponse, ColumnsAreThoseOfTheLongestSequence) {
  SdpaRequest request;
  *request.mutable_query() = RandomTensor({2, 6, 4}, 1);
  *request.mutable_key() = RandomTensor({1, 9, 4}, 2);
  *request.mutable_value() = RandomTensor({1, 9, 3}, 3);
  AskForAll(request);
  AskForTop(request, 5);
  for (const int end : {0, 2, 2, 6}) request.mutable_options()->add_cumulative_query_lengths(end);
  for (const int end : {0, 5, 8, 9}) request.mutable_options()->add_cumulative_key_lengths(end);
  const SdpaResponse response = CallSdpa(request, 3);
  EXPECT_THAT(Shape(response.output()), ElementsAre(2, 6, 3));
  EXPECT_THAT(Shape(response.log_sum_exp()), ElementsAre(2, 6));
  EXPECT_THAT(Shape(response.attention_weights()), ElementsAre(6, 5));
  EXPECT_THAT(Shape(response.scores()), ElementsAre(2, 6, 5));
  EXPECT_THAT(Shape(response.top_attention_weights()), ElementsAre(6, 5));
}

TEST(MergedResponse, HasTheShapeOfTheRequestsOwn) {
  SdpaRequest request = FullSdpaRequest();
  request.clear_outputs();
  request.add_outputs(v1::OUTPUT_KIND_OUTPUT);
  request.add_outputs(v1::OUTPUT_KIND_LOG_SUM_EXP);
  const SdpaResponse own = CallSdpa(request);
  *request.mutable_partials()->mutable_output() = RandomTensor({2, 2, 4, 3, 7}, 8);
  *request.mutable_partials()->mutable_log_sum_exp() = RandomTensor({2, 2, 4, 3}, 9);
  const SdpaResponse merged = CallSdpa(request, 7);
  EXPECT_EQ(Shape(merged.output()), Shape(own.output()));
  EXPECT_EQ(Shape(merged.log_sum_exp()), Shape(own.log_sum_exp()));
  EXPECT_NE(merged.output().data(), own.output().data());
}

}  // namespace
}  // namespace attend::server
