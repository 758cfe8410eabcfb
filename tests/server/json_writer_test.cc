// JSON as the HTTP door writes it, judged by protobuf's own reader and by what the shortest decimals are.
#include "server/connect/json_writer.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include "attend/v1/attention_service.pb.h"
#include "attend/v1/layer_service.pb.h"
#include "google/rpc/error_details.pb.h"

namespace attend::server {
namespace {

constexpr std::size_t kUnbounded = ~std::size_t{0};

std::string Json(const google::protobuf::Message& message) {
  std::string json;
  EXPECT_TRUE(AppendJson(message, kUnbounded, json));
  return json;
}

// What protobuf's reader makes of our JSON is the message.
template <typename Message>
void ExpectReadBack(const Message& message) {
  Message read;
  const auto parsed = google::protobuf::util::JsonStringToMessage(Json(message), &read);
  ASSERT_TRUE(parsed.ok()) << parsed.ToString() << "\n" << Json(message);
  EXPECT_EQ(read.SerializeAsString(), message.SerializeAsString()) << Json(message);
}

TEST(JsonWriter, EveryKindOfFieldReadsBack) {
  v1::AttendRequest request;
  request.mutable_embeddings()->set_data_type(v1::DATA_TYPE_FLOAT32);
  for (const std::int64_t size : {std::int64_t{1}, std::numeric_limits<std::int64_t>::max(), std::int64_t{-5}}) {
    request.mutable_embeddings()->add_shape(size);
  }
  request.mutable_embeddings()->set_data(std::string("\0\xff\x80~", 4));
  request.mutable_layer()->set_num_heads(-7);
  request.mutable_options()->set_scale(0.1);
  request.mutable_options()->set_sliding_window_left(0);  // Present and at its default.
  request.add_outputs(v1::OUTPUT_KIND_LOG_SUM_EXP);
  request.add_outputs(static_cast<v1::OutputKind>(99));
  request.set_layer_name("\"quotes\" \\ \n\t\x01 \x7f ä 😀 </script>");
  ExpectReadBack(request);
  EXPECT_THAT(Json(request), ::testing::HasSubstr("\"outputs\":[\"OUTPUT_KIND_LOG_SUM_EXP\",99]"));

  v1::GetServerInfoResponse info;
  info.set_bit_reproducible(true);
  info.mutable_limits()->set_max_request_flops(1e14);
  ExpectReadBack(info);

  google::rpc::ErrorInfo error;
  (*error.mutable_metadata())["flag"] = "--x";
  EXPECT_EQ(Json(error), "{\"metadata\":{\"flag\":\"--x\"}}");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(250'000'000);
  EXPECT_EQ(Json(retry), "{\"retryDelay\":\"0.250s\"}");
  EXPECT_EQ(Json(v1::AttendResponse()), "{}");
}

TEST(JsonWriter, FloatsAreTheShortestDecimalsThatReadBack) {
  v1::Tensor tensor;
  for (const float value : {0.1F, 1.0F / 3, 0.1234567F, 16777216.0F, 1e-45F, 3.4028235e38F, -0.0F, 100.0F,
                            std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    tensor.add_values(value);
  }
  EXPECT_EQ(Json(tensor),
            "{\"values\":[0.1,0.33333334,0.1234567,16777216,1e-45,3.4028234e+38,-0,100,\"Infinity\",\"-Infinity\"]}");
  tensor.Clear();
  tensor.add_values(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(Json(tensor), "{\"values\":[\"NaN\"]}");
}

TEST(JsonWriter, AnyFloatReadsBackByProtobufsReader) {
  std::mt19937 random(3);
  v1::Tensor tensor;
  tensor.add_values(std::numeric_limits<float>::max());
  tensor.add_values(std::numeric_limits<float>::lowest());
  for (int i = 0; i < 200'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (std::isfinite(value)) tensor.add_values(value);
  }
  ExpectReadBack(tensor);
}

// Pieces of numbers and of bytes, in a message that has other fields before and after them.
TEST(JsonText, IsTheSameTextPieceByPiece) {
  auto made = std::make_unique<v1::AttendRequest>();
  for (int i = 0; i < 20'000; ++i) made->mutable_embeddings()->add_values(0.1F * static_cast<float>(i));
  made->mutable_embeddings()->add_shape(20'000);
  made->mutable_context()->set_data(std::string(100'001, '\x9C'));
  made->set_layer_name("name");
  const std::string whole = Json(*made);
  EXPECT_EQ(JsonText::Of(std::make_unique<v1::AttendRequest>(*made), whole.size() - 1), nullptr);
  const auto text = JsonText::Of(std::move(made), whole.size());
  ASSERT_NE(text, nullptr);
  EXPECT_EQ(text->size(), whole.size());
  std::string written;
  int pieces = 0;
  for (std::string piece = text->Next(); !piece.empty(); piece = text->Next(), ++pieces) {
    EXPECT_LE(piece.size(), 66U << 10);
    written += piece;
  }
  EXPECT_EQ(written, whole);
  EXPECT_GE(pieces, 8);
  EXPECT_TRUE(text->Next().empty());
}

TEST(JsonText, StopsAtTheBoundInNumbersAndInBytes) {
  auto numbers = std::make_unique<v1::Tensor>();
  for (int i = 0; i < 100'000; ++i) numbers->add_values(0.5F);
  EXPECT_EQ(JsonText::Of(std::move(numbers), 100'000), nullptr);
  auto bytes = std::make_unique<v1::Tensor>();
  bytes->set_data(std::string(300'000, 'x'));
  EXPECT_EQ(JsonText::Of(std::move(bytes), 300'000), nullptr);
}

TEST(JsonWriter, StopsAtTheBound) {
  v1::Tensor tensor;
  for (int i = 0; i < 100'000; ++i) tensor.add_values(0.5F);
  std::string json;
  EXPECT_FALSE(AppendJson(tensor, 1000, json));
  EXPECT_LT(json.size(), 1100U);
  json.clear();
  EXPECT_TRUE(AppendJson(tensor, Json(tensor).size(), json));
}

}  // namespace
}  // namespace attend::server
