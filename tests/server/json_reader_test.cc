// JSON as the HTTP door reads it, judged by protobuf's own reader.
#include "server/connect/json_reader.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "server/connect/json_cursor.h"

namespace attend::server {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

grpc::ByteBuffer InPieces(const std::string& text, std::size_t piece) {
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 0; at < text.size(); at += piece) slices.emplace_back(text.substr(at, piece));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

template <typename Message>
absl::StatusOr<Message> Read(const std::string& text, std::size_t piece = 7) {
  grpc::ByteBuffer json = InPieces(text, piece);
  absl::StatusOr<grpc::ByteBuffer> binary = ReadJson(json, *Message::descriptor());
  EXPECT_EQ(json.Length(), 0U);
  if (!binary.ok()) return binary.status();
  std::vector<grpc::Slice> slices;
  std::string bytes;
  EXPECT_TRUE(binary->Dump(&slices).ok());
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  Message message;
  EXPECT_TRUE(message.ParseFromString(bytes)) << text;
  return message;
}

// Read as protobuf reads it, in pieces of any size.
template <typename Message>
void ExpectSame(const std::string& text) {
  Message expected;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(text, &expected).ok()) << text;
  for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{7}, text.size()}) {
    const auto read = Read<Message>(text, piece);
    ASSERT_TRUE(read.ok()) << read.status() << "\n" << text;
    EXPECT_EQ(read->SerializeAsString(), expected.SerializeAsString()) << text;
  }
}

TEST(JsonReader, WhatProtobufReadsIsReadAlike) {
  for (const char* text :
       {"{}", " \t\r\n{ } \n", R"({"embeddings": null, "outputs": null})", R"({"embeddings": {}})",
        R"({"embeddings": {"shape": [2, "2"], "values": [1, 0, 0.5, 1e-3], "data_type": "DATA_TYPE_FLOAT32"}})",
        R"({"embeddings": {"dataType": 1, "values": []}, "layer_name": "a", "layerEtag": "b"})",
        R"({"embeddings": {"values": ["NaN", "Infinity", "-Infinity", "1.5", 1E+2, 3.4028234e+38, 1e-45, 1e-400]}})",
        R"({"outputs": ["OUTPUT_KIND_LOG_SUM_EXP", 2, 99, -1], "positionOffsets": [-1, "-9223372036854775808"]})",
        R"({"layer": {"numHeads": -7}, "options": {"scale": 0.1, "slidingWindowLeft": "0", "floatScale": 2}})",
        R"({"embeddings": {"shape": [2.0, 1e3, "3"]}})",
        R"({"layerName": "\"\\\/\b\f\n\r\t \u00e4 \ud83d\ude00 \u0000 ä 😀"})",
        R"({"embeddings": {"data": "AP+AfgA="}})", R"({"embeddings": {"data": "AP-Afg"}})",
        R"({"embeddings": {"data": ""}})", R"({"layerName": "a", "embeddings": {"shape": [1]}, "outputs": [1]})"}) {
    ExpectSame<v1::AttendRequest>(text);
  }
  ExpectSame<v1::EstimateCostRequest>(R"({"attend": {"embeddings": {"shape": [1, 2]}}})");
  ExpectSame<v1::ScaledDotProductAttentionRequest>(R"({"query": {"shape": ["1"], "values": [0.1]}, "layout": 1})");
}

TEST(JsonReader, AsMuchAsFitsManyBlocks) {
  std::string text = R"({"embeddings": {"values": [)";
  for (int i = 0; i < 60'000; ++i) text += std::to_string(i % 977) + (i % 3 == 0 ? ".5," : ",");
  ExpectSame<v1::AttendRequest>(text + R"(7], "shape": [60001]}, "layerName": "x"})");
}

TEST(JsonReader, WhatIsNotTheMessageIsRefusedWithItsPlace) {
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "an object is expected"},
           {"[]", "an object is expected"},
           {"null", "an object is expected"},
           {"{} {}", "something follows"},
           {R"({"embedding": {}})", "there is no field 'embedding' (at character 12)"},
           {R"({"options": {"a\u0000\nb": 1}})", R"(options: there is no field 'a\x00\nb')"},
           {R"({")" + std::string(900, 'x') + R"(": 1})", "no field '" + std::string(64, 'x') + "' (at"},
           {R"({"embeddings": {"values": [1, "one"]}})", "embeddings.values[1]: a number is expected (at character"},
           {R"({"embeddings": {"values": [1e39]}})", "too large"},
           {R"({"embeddings": {"values": [1e400]}})", "too large"},
           {R"({"embeddings": {"values": [3.4028236e38]}})", "too large"},
           {R"({"options": {"scale": 1e400}})", "too large"},
           {R"({"embeddings": {"values": [1,]}})", "a number is expected"},
           {R"({"embeddings": {"values": [01]}})", "a number"},
           {R"({"embeddings": {"values": [.5]}})", "a number"},
           {R"({"embeddings": {"values": [1.]}})", "a number"},
           {R"({"embeddings": {"values": [+1]}})", "a number"},
           {R"({"embeddings": {"values": [nan]}})", "a number"},
           {R"({"embeddings": {"values": ["0x10"]}})", "a number"},
           {R"({"embeddings": {"values": [null]}})", "a number"},
           {R"({"embeddings": {"values": [)" + std::string(2000, '1') + "]}}", "a number"},
           {R"({"embeddings": {"shape": [1.5]}})", "embeddings.shape[0]: a whole number"},
           {R"({"embeddings": {"shape": [1e19]}})", "a whole number"},
           {R"({"embeddings": {"shape": 2}})", "a list"},
           {R"({"layer": {"numHeads": 2147483648}})", "a whole number"},
           {R"({"layerName": 1})", "a string"},
           {R"({"outputs": ["OUTPUT_KIND_NOTHING"]})", "no value of this name"},
           {"{\"layerName\": \"\xff\"}", "UTF-8"},
           {"{\"layerName\": \"\xc3\"}", "UTF-8"},
           {"{\"layerName\": \"\xed\xa0\x80\"}", "UTF-8"},
           {"{\"layerName\": \"a\nb\"}", "no string"},
           {R"({"layerName": "\ud83d"})", "no string"},
           {R"({"layerName": "\x"})", "no string"},
           {R"({"layerName": "a)", "no string"},
           {R"({"embeddings": {"data": "A"}})", "no base64"},
           {R"({"embeddings": {"data": "AA=A"}})", "no base64"},
           {R"({"embeddings": {"data": "===="}})", "no base64"},
           {R"({"embeddings": {"data": "A A="}})", "no base64"},
           {R"({"embeddings" {}})", "a colon"},
           {R"({"embeddings": {} "outputs": []})", "a comma"},
           {R"({embeddings: {}})", "in quotes"},
           {R"({"embeddings": nul})", "a value"},
           {R"({"embeddings": )", "an object"}}) {
    const auto read = Read<v1::AttendRequest>(text);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(why)) << text;
  }
  EXPECT_THAT(
      std::string(
          Read<v1::EstimateCostRequest>(R"({"attend": {}, "scaledDotProductAttention": {}})").status().message()),
      HasSubstr("only one of several"));
}

// protobuf 3.21 takes the last scalar, joins lists and merges messages; protobuf's readers in other languages refuse.
TEST(JsonReader, AFieldComesOnce) {
  for (const auto& [text, place] : std::vector<std::pair<std::string, std::string>>{
           {R"({"layerName": "a", "layerName": "b"})", "layerName: "},
           {R"({"layerName": "a", "layer_name": "a"})", "layerName: "},
           {R"({"layerName": null, "layer_name": "a"})", "layerName: "},
           {R"({"layerName": "a", "layerName": null})", "layerName: "},
           {R"({"embeddings": {"values": [1], "shape": [2], "values": [2]}})", "embeddings.values: "},
           {R"({"embeddings": {"values": [], "values": []}})", "embeddings.values: "},
           {R"({"embeddings": {"shape": [1]}, "embeddings": {"dataType": 1}})", "embeddings: "}}) {
    const auto read = Read<v1::AttendRequest>(text);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(read.status().message()), StartsWith(place + "the field comes twice")) << text;
  }
  EXPECT_THAT(std::string(Read<v1::EstimateCostRequest>(R"({"attend": {}, "attend": {}})").status().message()),
              StartsWith("attend: the field comes twice"));
  EXPECT_TRUE(Read<v1::ScaledDotProductAttentionRequest>(R"({"query": {"shape": [1]}, "key": {"shape": [1]}})").ok());
}

// protobuf's reader rounds to double first, and takes half of the refused ones for a number that nobody wrote.
TEST(JsonReader, AWholeNumberIsTheOneThatWasWritten) {
  const auto shape = [](const std::string& number) {
    const auto read = Read<v1::AttendRequest>(R"({"embeddings": {"shape": [)" + number + "]}}");
    return read.ok() ? std::to_string(read->embeddings().shape(0)) : "refused";
  };
  for (const auto& [text, value] :
       std::vector<std::pair<std::string, std::string>>{{"1.0", "1"},
                                                        {"1e3", "1000"},
                                                        {"-1.50e1", "-15"},
                                                        {"1200e-2", "12"},
                                                        {"0.001E+3", "1"},
                                                        {"0e99999", "0"},
                                                        {"\"2.0\"", "2"},
                                                        {"0.0e-5", "0"},
                                                        {"9007199254740992.0", "9007199254740992"},
                                                        {"9007199254740993", "9007199254740993"},
                                                        {"-9223372036854775808", "-9223372036854775808"}}) {
    EXPECT_EQ(shape(text), value) << text;
  }
  for (const char* text : {"9007199254740993.0", "-9007199254740993.0", "0.99999999999999999999",
                           "1.00000000000000000001", "15e-1", "1e-400", "1e16", "1e400", "1e-99999999999999999999",
                           "1e9223372036854775807", "\"1e\"", "\"-\"", "\".\"", "\"1.0.0\"", "\"--1\""}) {
    EXPECT_EQ(shape(text), "refused") << text;
  }
  for (const char* heads : {"2147483648.0", "-2147483649.0", "0.9999999999999999999999"}) {
    EXPECT_FALSE(Read<v1::AttendRequest>(std::string(R"({"layer": {"numHeads": )") + heads + "}}").ok()) << heads;
  }
}

// protobuf's reader takes it for an integer.
TEST(JsonReader, ANegativeZeroKeepsItsSign) {
  const auto read = Read<v1::AttendRequest>(R"({"embeddings": {"values": [-0, -0.0]}})");
  ASSERT_TRUE(read.ok()) << read.status();
  for (const float value : read->embeddings().values()) EXPECT_TRUE(std::signbit(value));
}

// Our writer, and others, write it so: it lies half a step beyond the greatest float.
TEST(JsonReader, WhatRoundsToTheGreatestFloatIsTheGreatestFloat) {
  const auto read = Read<v1::AttendRequest>(R"({"embeddings": {"values": [3.4028235e38, -3.4028235e+38]}})");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->embeddings().values(0), std::numeric_limits<float>::max());
  EXPECT_EQ(read->embeddings().values(1), std::numeric_limits<float>::lowest());
}

// So that a long text and its bytes are not both in memory.
TEST(JsonCursor, LetsGoOfWhatItHasRead) {
  int held = 3;
  std::vector<grpc::Slice> slices;
  static char text[64] = {};
  std::fill(std::begin(text), std::end(text), ' ');
  for (int i = 0; i < 3; ++i) {
    slices.emplace_back(
        text, sizeof text, [](void* count) { --*static_cast<int*>(count); }, &held);
  }
  grpc::ByteBuffer json(slices.data(), slices.size());
  slices.clear();
  JsonCursor cursor(json);
  for (int i = 0; i < 65; ++i) EXPECT_EQ(cursor.Next(), ' ');
  EXPECT_EQ(held, 2);
  while (cursor.Next() != JsonCursor::kEnd) {
  }
  EXPECT_EQ(held, 0);
  EXPECT_EQ(cursor.offset(), 3 * sizeof text);
}

}  // namespace
}  // namespace attend::server
