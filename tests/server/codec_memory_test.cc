// What decoding takes memory for besides tensors: lists, whose numbers take up to eight times their bytes, and names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/layers/layer.h"
#include "server/layers/layer_registry.h"
#include "server/requests/decoders.h"
#include "server/wire/wire_format.h"
#include "tests/support/example_requests.h"
#include "tests/support/process_status.h"
#include "tests/support/reader_vs_protobuf.h"

namespace attend::server {
namespace {

using ::attend::testing::ProcessStatus;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using SdpaRequest = v1::ScaledDotProductAttentionRequest;
using v1::AttendRequest;

// Memory that can be asked for, and what was.
struct Budget {
  double limit = std::numeric_limits<double>::infinity();
  std::vector<double> asked = {};

  absl::Status Take(double bytes) {
    asked.push_back(bytes);
    return bytes <= limit ? absl::OkStatus() : absl::UnavailableError("others hold it");
  }
};

class CodecMemoryTest : public ::testing::Test {
 protected:
  CodecMemoryTest() {
    v1::SeededWeights seeded;
    seeded.set_embed_dim(8);
    layers_.Put({kSharedTenant, "a"},
                *Layer::Create(*SeededLayer(seeded), {}, {.name = "a", .etag = "e"}, BestInstructionSet()));
  }

  auto Decode(const Decoder& decoder, const grpc::ByteBuffer& request, Budget& budget) const {
    return decoder(request, {limits_, kSharedTenant, [&budget](double bytes) { return budget.Take(bytes); }});
  }
  template <typename Request>
  auto Decode(const Request& request, Budget& budget) const {
    return Decode(DecoderOf(request), Sliced(request.SerializeAsString(), 0), budget);
  }
  Decoder DecoderOf(const SdpaRequest& /*type*/) const { return SdpaDecoder(); }
  Decoder DecoderOf(const AttendRequest& /*type*/) const { return AttendDecoder(&layers_); }

  const Limits limits_;
  LayerRegistry layers_;
};

// Of so many bytes.
void Append(int field_number, const std::string& payload, std::string& out) {
  AppendLengthPrefix(field_number, static_cast<std::int64_t>(payload.size()), out);
  out += payload;
}

// A list of ones, each a byte, as a field of the request or, where `is_option`, of its options.
struct Ones {
  bool is_option;
  int field_number;
  std::size_t count;
};

// `request` with a list that is too long to build as a message.
template <typename Request>
std::string With(const Request& request, const Ones& ones) {
  std::string list;
  list.reserve(ones.count + 32);
  AppendLengthPrefix(ones.field_number, static_cast<std::int64_t>(ones.count), list);
  list.append(ones.count, '\1');
  if (!ones.is_option) return request.SerializeAsString() + list;
  std::string bytes = request.SerializeAsString();
  Append(Request::kOptionsFieldNumber, list, bytes);
  return bytes;
}

constexpr std::size_t kMany = 16 << 20;  // In memory these are 128 MiB.

SdpaRequest QueryWithoutContents(const std::vector<std::int64_t>& shape) {
  SdpaRequest request;
  request.mutable_query()->mutable_shape()->Add(shape.begin(), shape.end());
  return request;
}

AttendRequest EmbeddingsWithoutContents(const std::vector<std::int64_t>& shape) {
  AttendRequest request;
  request.mutable_embeddings()->mutable_shape()->Add(shape.begin(), shape.end());
  request.set_layer_name("a");
  return request;
}

TEST_F(CodecMemoryTest, ListsBesideAShapeWithoutContentsAreNotCopied) {
  using Options = v1::AttentionOptions;
  constexpr auto kBatch = static_cast<std::int64_t>(kMany);
  constexpr std::int64_t kLong = std::int64_t{1} << 40;
  const SdpaRequest ragged = QueryWithoutContents({kLong, 1}), padded = QueryWithoutContents({kBatch, 1, 1, 1});
  const AttendRequest offset = EmbeddingsWithoutContents({kBatch, 1, 8}), text = EmbeddingsWithoutContents({kLong, 8});
  const struct {
    Decoder decoder;
    std::string bytes;
    std::string field;
  } attempts[] = {
      {DecoderOf(ragged), With(ragged, {true, Options::kCumulativeQueryLengthsFieldNumber, kMany}), "query"},
      {DecoderOf(ragged), With(ragged, {true, Options::kCumulativeKeyLengthsFieldNumber, kMany}), "query"},
      {DecoderOf(padded), With(padded, {true, Options::kValidLengthsFieldNumber, kMany}), "query"},
      {DecoderOf(offset), With(offset, {false, AttendRequest::kPositionOffsetsFieldNumber, kMany}), "embeddings"},
      {DecoderOf(text), With(text, {true, Options::kCumulativeQueryLengthsFieldNumber, kMany}), "embeddings"},
  };
  for (const auto& attempt : attempts) {
    const grpc::ByteBuffer request = Sliced(attempt.bytes, 0);
    Budget budget;
    const std::int64_t before = ProcessStatus("VmPeak");
    const absl::Status status = Decode(attempt.decoder, request, budget).status();
    EXPECT_LT(ProcessStatus("VmPeak") - before, 16 << 20) << status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetails(status).field, attempt.field);
    EXPECT_THAT(std::string(status.message()), HasSubstr("has neither data nor values"));
    EXPECT_THAT(budget.asked, IsEmpty());
  }
}

// Three sequences; so many numbers in both lists.
constexpr double kRaggedNumbers = 4 + 4;
SdpaRequest RaggedRequest() {
  SdpaRequest request;
  *request.mutable_query() = RandomTensor({1, 2, 6, 4}, 1);
  *request.mutable_key() = RandomTensor({1, 1, 9, 4}, 2);
  *request.mutable_value() = RandomTensor({1, 1, 9, 3}, 3);
  for (const int end : {0, 2, 2, 6}) request.mutable_options()->add_cumulative_query_lengths(end);
  for (const int end : {0, 5, 8, 9}) request.mutable_options()->add_cumulative_key_lengths(end);
  return request;
}

AttendRequest OffsetRequest() {
  AttendRequest request;
  *request.mutable_embeddings() = RandomTensor({3, 2, 8}, 1);
  request.set_layer_name("a");
  for (const int offset : {0, 7, 1}) request.add_position_offsets(offset);
  request.mutable_options()->add_valid_lengths(1);  // One too few: refused by its number, without a copy.
  request.mutable_options()->add_valid_lengths(1);
  return request;
}

TEST_F(CodecMemoryTest, ListsAreAskedForTogetherAndBesideTheRequest) {
  const SdpaRequest ragged = RaggedRequest();
  const auto bytes = static_cast<double>(ragged.ByteSizeLong());
  Budget enough;
  const auto job = Decode(ragged, enough);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(enough.asked, ElementsAre(bytes + 8 * kRaggedNumbers, (*job)->memory_bytes()));
  Budget little{.limit = bytes};
  EXPECT_EQ(Decode(ragged, little).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(little.asked, ElementsAre(bytes + 8 * kRaggedNumbers));
}

TEST_F(CodecMemoryTest, PositionOffsetsAreListsToo) {
  const AttendRequest offset = OffsetRequest();
  Budget budget;
  EXPECT_EQ(GetErrorDetails(Decode(offset, budget).status()).field, "options.valid_lengths");
  EXPECT_THAT(budget.asked, ElementsAre(static_cast<double>(offset.ByteSizeLong()) + 8 * 3));
}

TEST_F(CodecMemoryTest, WithoutListsTensorsAloneAreAskedFor) {
  Budget budget;
  const auto job = Decode(FullAttendRequest(), budget);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(budget.asked, ElementsAre((*job)->memory_bytes()));
}

TEST_F(CodecMemoryTest, AnEstimateCountsLists) {
  SdpaRequest ragged = RaggedRequest();
  const absl::StatusOr<RequestCost> with = SdpaEstimator()(Sliced(ragged.SerializeAsString(), 0), limits_);
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_EQ(with->list_bytes, 8 * kRaggedNumbers);
  EXPECT_EQ(with->memory_bytes, (*SdpaDecoder()(Sliced(ragged.SerializeAsString(), 0), limits_))->memory_bytes());
  ragged.clear_options();
  EXPECT_EQ(SdpaEstimator()(Sliced(ragged.SerializeAsString(), 0), limits_)->list_bytes, 0);
}

TEST_F(CodecMemoryTest, NamesThatAreTooLongAreNotCopied) {
  constexpr std::size_t kLong = 64 << 20;
  AttendRequest named = OffsetRequest(), other_version = OffsetRequest();
  named.clear_layer_name();
  const struct {
    const AttendRequest& request;
    int field_number;
    absl::StatusCode code;
    std::string message;
  } attempts[] = {
      {named, AttendRequest::kLayerNameFieldNumber, absl::StatusCode::kInvalidArgument,
       "layer_name has 67108864 bytes; a layer's name has 1 to 128 characters"},
      {other_version, AttendRequest::kLayerEtagFieldNumber, absl::StatusCode::kAborted, "has the etag 'e'"},
  };
  for (const auto& attempt : attempts) {
    std::string bytes = attempt.request.SerializeAsString();
    bytes.reserve(bytes.size() + kLong + 32);
    AppendLengthPrefix(attempt.field_number, kLong, bytes);
    bytes.append(kLong, 'a');
    const grpc::ByteBuffer request = Sliced(bytes, 16 << 10);
    Budget budget;
    const std::int64_t before = ProcessStatus("VmPeak");
    const absl::Status status = Decode(AttendDecoder(&layers_), request, budget).status();
    EXPECT_LT(ProcessStatus("VmPeak") - before, 16 << 20);
    EXPECT_EQ(status.code(), attempt.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(attempt.message));
  }
}

}  // namespace
}  // namespace attend::server
