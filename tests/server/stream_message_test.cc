// The messages of StreamAttend: read as protobuf reads them, written as protobuf writes them, without a copy.
#include "server/wire/stream_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/rpc/status.h"
#include "tests/support/byte_buffers.h"
#include "tests/support/reader_vs_protobuf.h"

namespace attend::server {
namespace {

using ::testing::IsEmpty;

v1::StreamAttendRequest ExampleRequest() {
  v1::StreamAttendRequest request;
  request.set_id(1234567890123);
  request.mutable_timeout()->set_seconds(3);
  request.mutable_timeout()->set_nanos(500);
  request.mutable_attend()->mutable_embeddings()->add_shape(2);
  request.mutable_attend()->mutable_embeddings()->set_data(std::string(100, 'x'));
  return request;
}

TEST(StreamMessageTest, ReadsWhatProtobufReadsHoweverTheMessageIsCut) {
  const std::string whole = ExampleRequest().SerializeAsString();
  v1::StreamAttendRequest second;
  second.mutable_timeout()->set_nanos(7);
  second.mutable_attend()->mutable_embeddings()->add_shape(50);
  const std::string merged = whole + second.SerializeAsString();  // As protobuf merges.
  for (const std::string& bytes : {std::string(), whole, merged, merged + "\x0d" + std::string(4, '\0')}) {
    for (const std::size_t slice_size : {0, 1, 2, 3, 7, 64}) {
      bool accepted = false;
      EXPECT_THAT(CompareStreamRequest(bytes, Sliced(bytes, slice_size), &accepted), IsEmpty());
      EXPECT_TRUE(accepted);
    }
  }
}

// Of a oneof, the last member wins, and it is merged with what came of it since another member.
TEST(StreamMessageTest, TheLastMemberWinsAsInProtobuf) {
  v1::StreamAttendRequest attend, sdpa, more;
  attend.mutable_attend()->mutable_embeddings()->add_shape(2);
  more.mutable_attend()->mutable_context()->add_shape(3);
  sdpa.mutable_scaled_dot_product_attention()->mutable_query()->set_data(std::string(100, 'x'));
  const std::string a = attend.SerializeAsString(), b = more.SerializeAsString(), s = sdpa.SerializeAsString();
  for (const std::string& bytes : {s, s + s, a + s, s + a, a + b, a + s + b, s + a + b, s + a + s, a + b + s + s}) {
    for (const std::size_t slice_size : {0, 1, 3, 64}) {
      bool accepted = false;
      EXPECT_THAT(CompareStreamRequest(bytes, Sliced(bytes, slice_size), &accepted), IsEmpty())
          << ::testing::PrintToString(bytes);
      EXPECT_TRUE(accepted);
    }
  }
}

class BrokenStreamMessageTest : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kinds, BrokenStreamMessageTest, ::testing::Bool());

TEST_P(BrokenStreamMessageTest, IsJudgedAsProtobufDoes) {
  v1::StreamAttendRequest example = ExampleRequest();
  if (GetParam())
    *example.mutable_scaled_dot_product_attention()->mutable_query() = ExampleRequest().attend().embeddings();
  const std::string whole = example.SerializeAsString();
  std::mt19937 random(7);
  int accepted_count = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = whole.substr(0, i % 3 == 0 ? random() % whole.size() : whole.size());
    for (unsigned changes = random() % 3; changes > 0 && !bytes.empty(); --changes) {
      bytes[random() % std::min<std::size_t>(bytes.size(), 24)] = static_cast<char>(random());
    }
    bool accepted = false;
    ASSERT_THAT(CompareStreamRequest(bytes, Sliced(bytes, random() % 5), &accepted), IsEmpty())
        << ::testing::PrintToString(bytes);
    accepted_count += accepted ? 1 : 0;
  }
  EXPECT_GT(accepted_count, 4000);
  EXPECT_LT(accepted_count, 16000);
}

TEST(StreamMessageTest, WhatIsCarriedSharesTheTransportsMemory) {
  const std::string bytes = ExampleRequest().SerializeAsString();
  const grpc::ByteBuffer message = Sliced(bytes, 40);
  StreamRequest request;
  ASSERT_TRUE(ReadStreamRequest(message, request).ok());
  ASSERT_TRUE(request.request.has_value());
  EXPECT_EQ(request.request->kind, RequestKind::kAttend);
  EXPECT_EQ(Join(request.request->bytes), ExampleRequest().attend().SerializeAsString());
  std::vector<grpc::Slice> all, carried;
  ASSERT_TRUE(message.Dump(&all).ok() && request.request->bytes.Dump(&carried).ok());
  ASSERT_GE(carried.size(), 3u);
  // The second slice of the request is a slice of the message, be it the same from its first byte.
  bool shared = false;
  for (const grpc::Slice& slice : all) shared |= slice.begin() == carried[1].begin();
  EXPECT_TRUE(shared);
}

TEST(StreamMessageTest, ErrorsTellThePosition) {
  StreamRequest request;
  const absl::Status status = ReadStreamRequest(Sliced("\x08\x02\x1a\x7fshort", 0), request);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(GetErrorDetails(status).reason, "MALFORMED_REQUEST");
}

TEST(StreamMessageTest, TimeoutsAreDurationsOfMoreThanZero) {
  EXPECT_EQ(*CheckTimeout(std::nullopt), absl::InfiniteDuration());
  EXPECT_EQ(*CheckTimeout(RawDuration{1, 500}), absl::Seconds(1) + absl::Nanoseconds(500));
  EXPECT_EQ(*CheckTimeout(RawDuration{0, 1}), absl::Nanoseconds(1));
  EXPECT_EQ(*CheckTimeout(RawDuration{315'576'000'000, 999'999'999}),
            absl::Seconds(315'576'000'000) + absl::Nanoseconds(999'999'999));
  for (const RawDuration bad : {RawDuration{0, 0}, RawDuration{-1, 0}, RawDuration{0, -1}, RawDuration{1, -1},
                                RawDuration{-1, 1}, RawDuration{0, 1'000'000'000}, RawDuration{315'576'000'001, 0}}) {
    const absl::Status status = CheckTimeout(bad).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad.seconds << " " << bad.nanos;
    EXPECT_EQ(GetErrorDetails(status).field, "timeout");
  }
}

TEST(StreamMessageTest, AnswersAreWhatProtobufWouldWrite) {
  v1::AttendResponse response;
  response.mutable_output()->set_data(std::string(1000, 'y'));
  const std::string carried = response.SerializeAsString();
  for (const std::int64_t id : {0, 5, -1}) {
    for (const RequestKind kind : {RequestKind::kAttend, RequestKind::kScaledDotProductAttention}) {
      const std::string bytes = Join(StreamResponse(id, "receive;dur=0.1", kind, Sliced(carried, 300)));
      v1::StreamAttendResponse answer;
      ASSERT_TRUE(answer.ParseFromString(bytes));
      EXPECT_EQ(answer.id(), id);
      EXPECT_EQ(answer.server_timing(), "receive;dur=0.1");
      EXPECT_EQ(answer.has_attend(), kind == RequestKind::kAttend);
      EXPECT_EQ(answer.has_scaled_dot_product_attention(), kind == RequestKind::kScaledDotProductAttention);
      EXPECT_EQ(answer.attend().SerializeAsString() + answer.scaled_dot_product_attention().SerializeAsString(),
                carried);
      EXPECT_FALSE(answer.has_status());
      EXPECT_EQ(answer.SerializeAsString(), bytes);
    }
  }
}

TEST(StreamMessageTest, ErrorsCarryWhatAUnaryCallsTrailerWould) {
  const absl::Status status = BusyError("QUEUE_FULL", "too much to do", 250);
  const std::string bytes = Join(StreamError(9, "queue;dur=1.0", ToRpcStatus(status)));
  v1::StreamAttendResponse answer;
  ASSERT_TRUE(answer.ParseFromString(bytes));
  EXPECT_EQ(answer.id(), 9);
  EXPECT_FALSE(answer.has_attend());
  EXPECT_EQ(answer.status().SerializeAsString(), ToGrpcStatus(status).error_details());
  EXPECT_EQ(answer.SerializeAsString(), bytes);
}

}  // namespace
}  // namespace attend::server
