// What the decoders refuse, what they say about it, and that refusing costs nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/requests/decoders.h"
#include "tests/support/decoder_cases.h"
#include "tests/support/example_requests.h"
#include "tests/support/process_status.h"
#include "tests/support/reader_vs_protobuf.h"
#include "tests/support/tensor_messages.h"

namespace attend::server {
namespace {

using ::attend::testing::ProcessStatus;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using SdpaRequest = v1::ScaledDotProductAttentionRequest;
using v1::AttendRequest;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

// Of [B = 2, H = 4, T = 3, E = 6], K = 2, S = 5, V = 7.
std::vector<Case<SdpaRequest>> SdpaCases() {
  using R = SdpaRequest;
  return {
      {"AsItIs", [](R&) {}, ""},
      {"Empty", [](R& r) { r.Clear(); }, "query", "query is missing"},
      {"EmptyQuery", [](R& r) { r.mutable_query()->Clear(); }, "query.shape", "is empty; it must be [T, E]"},
      {"NoKey", [](R& r) { r.clear_key(); }, "key", "key is missing"},
      {"NoValue", [](R& r) { r.clear_value(); }, "value", "value is missing"},
      {"QueryOfOneAxis", [](R& r) { *r.mutable_query() = RandomTensor({6}, 1); }, "query.shape", "has 1 axis"},
      {"QueryOfFiveAxes",
       [](R& r) {
         *r.mutable_query() = RandomTensor({1, 2, 4, 3, 6}, 1);
       },
       "query.shape", "has 5 axes; it must be [T, E], [H, T, E] or [B, H, T, E]"},
      {"KeyWithoutBatch",
       [](R& r) {
         *r.mutable_key() = RandomTensor({2, 5, 6}, 1);
       },
       "key.shape", "key.shape has 3 axes, but query.shape has 4"},
      {"ValueWithoutHeads",
       [](R& r) {
         *r.mutable_value() = RandomTensor({5, 7}, 1);
       },
       "value.shape", "has 2 axes"},
      {"BatchDiffers",
       [](R& r) {
         *r.mutable_key() = RandomTensor({1, 2, 5, 6}, 1);
       },
       "key.shape", "batch size 1"},
      {"HeadsDoNotDivide",
       [](R& r) {
         *r.mutable_key() = RandomTensor({2, 3, 5, 6}, 1);
       },
       "key.shape", "divide"},
      {"HeadSizeDiffers",
       [](R& r) {
         *r.mutable_key() = RandomTensor({2, 2, 5, 5}, 1);
       },
       "key.shape", "head size 5"},
      {"ValueTooShort",
       [](R& r) {
         *r.mutable_value() = RandomTensor({2, 2, 4, 7}, 1);
       },
       "value.shape", "tokens 4"},
      {"QueryDataCut", [](R& r) { r.mutable_query()->mutable_data()->pop_back(); }, "query.data", "575 bytes"},
      {"KeyNegativeAxis", [](R& r) { r.mutable_key()->set_shape(2, -5); }, "key.shape[2]", "is -5"},
      {"ValueHalfTypeInFourBytes", [](R& r) { r.mutable_value()->set_data_type(v1::DATA_TYPE_BFLOAT16); }, "value.data",
       "elements of 2 bytes, DATA_TYPE_BFLOAT16"},
      {"ScaleNan", [](R& r) { r.mutable_options()->set_scale(std::numeric_limits<float>::quiet_NaN()); },
       "options.scale", "finite"},
      {"ScaleZeroIsAScale", [](R& r) { r.mutable_options()->set_scale(0); }, ""},
      {"SoftcapZero", [](R& r) { r.mutable_options()->set_softcap(0); }, "options.softcap", "positive"},
      {"CausalUnknown", [](R& r) { r.mutable_options()->set_causal(static_cast<v1::CausalMode>(4)); }, "options.causal",
       "options.causal is 4, which is not a known CausalMode; it must be CAUSAL_MODE_BOTTOM_RIGHT (1)"},
      {"CausalNegative", [](R& r) { r.mutable_options()->set_causal(static_cast<v1::CausalMode>(-1)); },
       "options.causal", "is -1"},
      {"PrecisionFast", [](R& r) { r.mutable_options()->set_precision(v1::PRECISION_FAST); }, ""},
      {"PrecisionUnknown", [](R& r) { r.mutable_options()->set_precision(static_cast<v1::Precision>(3)); },
       "options.precision", "options.precision is 3, which is not a known Precision"},
      {"WindowNegative", [](R& r) { r.mutable_options()->set_sliding_window_right(-1); },
       "options.sliding_window_right", "at least 0"},
      {"FormUnknown",
       [](R& r) { r.mutable_options()->set_attention_weights_form(static_cast<v1::AttentionWeightsForm>(3)); },
       "options.attention_weights_form", "is 3, which is not a known form"},
      {"LengthTooLong", [](R& r) { r.mutable_options()->set_valid_lengths(1, 6); }, "options.valid_lengths[1]",
       "between 0 and 5"},
      {"LengthNegative", [](R& r) { r.mutable_options()->set_valid_lengths(0, -1); }, "options.valid_lengths[0]", "-1"},
      {"LengthHuge", [](R& r) { r.mutable_options()->set_valid_lengths(0, kMax); }, "options.valid_lengths[0]"},
      {"OneLengthTooFew", [](R& r) { r.mutable_options()->mutable_valid_lengths()->RemoveLast(); },
       "options.valid_lengths", "has 1 entries"},
      {"OneLengthTooMany", [](R& r) { r.mutable_options()->add_valid_lengths(1); }, "options.valid_lengths", "has 3"},
      {"NoLengths", [](R& r) { r.mutable_options()->clear_valid_lengths(); }, ""},
      {"MaskOfTwoAxes",
       [](R& r) {
         *r.mutable_options()->mutable_mask() = BoolTensor({3, 5}, std::string(15, '\1'));
       },
       ""},
      {"MaskOfThreeAxes",
       [](R& r) {
         *r.mutable_options()->mutable_mask() = BoolTensor({1, 3, 5}, std::string(15, '\1'));
       },
       "options.mask.shape", "has 3 axes; it must be [T, S] or [B, H, T, S]"},
      {"MaskOfOtherQueries",
       [](R& r) {
         *r.mutable_options()->mutable_mask() = BoolTensor({4, 5}, std::string(20, '\1'));
       },
       "options.mask.shape", "it must be [2, 4, 3, 5]"},
      {"MaskOfKeyHeads",
       [](R& r) {
         *r.mutable_options()->mutable_mask() = BoolTensor({1, 2, 3, 5}, std::string(30, '\1'));
       },
       "options.mask.shape", "is [1, 2, 3, 5]"},
      {"MaskOfFloats",
       [](R& r) {
         *r.mutable_options()->mutable_mask() = RandomTensor({3, 5}, 1);
       },
       "options.mask.data_type", "must be DATA_TYPE_BOOL"},
      {"MaskEmpty", [](R& r) { r.mutable_options()->mutable_mask()->Clear(); }, "options.mask.shape", "is empty"},
      {"BiasOfOtherKeys",
       [](R& r) {
         *r.mutable_options()->mutable_bias() = RandomTensor({1, 1, 1, 4}, 1);
       },
       "options.bias.shape", "it must be [2, 4, 3, 5]"},
      {"BiasOfBools",
       [](R& r) {
         *r.mutable_options()->mutable_bias() = BoolTensor({3, 5}, std::string(15, '\1'));
       },
       "options.bias.data_type", "must be one of DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT16"},
      {"SlopesOfKeyHeads", [](R& r) { *r.mutable_options()->mutable_alibi_slopes() = RandomTensor({2}, 1); },
       "options.alibi_slopes.shape", "[4]"},
      {"SlopesOfTwoAxes",
       [](R& r) {
         *r.mutable_options()->mutable_alibi_slopes() = RandomTensor({1, 4}, 1);
       },
       "options.alibi_slopes.shape", "has 2 axes; it must be [H]"},
      {"OneSinkTooMany", [](R& r) { *r.mutable_options()->mutable_sinks() = RandomTensor({5}, 1); },
       "options.sinks.shape", "[5]"},
      {"OutputUnspecified", [](R& r) { r.set_outputs(1, v1::OUTPUT_KIND_UNSPECIFIED); }, "outputs[1]",
       "outputs[1] is OUTPUT_KIND_UNSPECIFIED"},
      {"OutputUnknown", [](R& r) { r.set_outputs(3, static_cast<v1::OutputKind>(9)); }, "outputs[3]",
       "outputs[3] is 9"},
      {"OutputNegative", [](R& r) { r.set_outputs(0, static_cast<v1::OutputKind>(-1)); }, "outputs[0]", "is -1"},
      {"OutputQuery", [](R& r) { r.set_outputs(1, v1::OUTPUT_KIND_QUERY); }, "outputs[1]",
       "is OUTPUT_KIND_QUERY, which this method cannot return; it must be one of OUTPUT_KIND_OUTPUT"},
      {"OutputKey", [](R& r) { r.set_outputs(2, v1::OUTPUT_KIND_KEY); }, "outputs[2]"},
      {"OutputValue", [](R& r) { r.add_outputs(v1::OUTPUT_KIND_VALUE); }, "outputs[5]"},
      {"TheFirstWrongOutputIsNamed",
       [](R& r) { r.set_outputs(3, static_cast<v1::OutputKind>(99)), r.set_outputs(1, v1::OUTPUT_KIND_VALUE); },
       "outputs[1]"},
  };
}

// Of [B = 2, T = 3, D = 6], context [2, S = 4, D' = 5], H = 4, K = 2, E = 3, V = 2, D_out = 7.
std::vector<Case<AttendRequest>> AttendCases() {
  using R = AttendRequest;
  return {
      {"AsItIs", [](R&) {}, ""},
      {"Empty", [](R& r) { r.Clear(); }, "embeddings", "embeddings is missing"},
      {"EmptyEmbeddings", [](R& r) { r.mutable_embeddings()->Clear(); }, "embeddings.shape", "it must be [T, D]"},
      {"EmbeddingsOfFourAxes",
       [](R& r) {
         *r.mutable_embeddings() = RandomTensor({1, 2, 3, 6}, 1);
       },
       "embeddings.shape", "has 4 axes; it must be [T, D] or [B, T, D]"},
      {"ContextWithoutBatch",
       [](R& r) {
         *r.mutable_context() = RandomTensor({4, 5}, 1);
       },
       "context.shape", "has 2 axes, but embeddings.shape has 3"},
      {"ContextOfOtherBatch",
       [](R& r) {
         *r.mutable_context() = RandomTensor({1, 4, 5}, 1);
       },
       "context.shape", "batch size 1"},
      {"ContextEmpty", [](R& r) { r.mutable_context()->Clear(); }, "context.shape", "is empty"},
      {"ContextOfOtherSizeWithoutLayer", [](R& r) { r.clear_layer(); }, "context.shape", "without a layer"},
      {"EmptyLayer", [](R& r) { r.mutable_layer()->Clear(); }, "layer.query_projection.weight", "is missing"},
      {"NoValueProjection", [](R& r) { r.mutable_layer()->clear_value_projection(); }, "layer.value_projection.weight",
       "is missing"},
      {"NoKeyWeight", [](R& r) { r.mutable_layer()->mutable_key_projection()->clear_weight(); },
       "layer.key_projection.weight", "is missing"},
      {"NoOutputWeight", [](R& r) { r.mutable_layer()->mutable_output_projection()->clear_weight(); },
       "layer.output_projection.weight", "is missing"},
      {"EmptyOutputProjection", [](R& r) { r.mutable_layer()->mutable_output_projection()->Clear(); },
       "layer.output_projection.weight", "is missing"},
      {"NoOutputProjection", [](R& r) { r.mutable_layer()->clear_output_projection(); }, ""},
      {"NoBiases", [](R& r) { r.mutable_layer()->mutable_query_projection()->clear_bias(); }, ""},
      {"WeightOfOneAxis",
       [](R& r) { *r.mutable_layer()->mutable_query_projection()->mutable_weight() = RandomTensor({72}, 1); },
       "layer.query_projection.weight.shape", "has 1 axis; it must be [out_features, in_features]"},
      {"WeightOfOtherInput",
       [](R& r) {
         *r.mutable_layer()->mutable_value_projection()->mutable_weight() = RandomTensor({4, 6}, 1);
       },
       "layer.value_projection.weight.shape", "second axis must be 5"},
      {"WeightDataCut",
       [](R& r) { r.mutable_layer()->mutable_output_projection()->mutable_weight()->mutable_data()->pop_back(); },
       "layer.output_projection.weight.data", "has 223 bytes"},
      {"BiasOfOtherLength",
       [](R& r) { *r.mutable_layer()->mutable_key_projection()->mutable_bias() = RandomTensor({5}, 1); },
       "layer.key_projection.bias.shape", "is [5], but layer.key_projection.weight.shape starts with 6"},
      {"BiasOfTwoAxes",
       [](R& r) {
         *r.mutable_layer()->mutable_query_projection()->mutable_bias() = RandomTensor({1, 12}, 1);
       },
       "layer.query_projection.bias.shape", "has 2 axes; it must be [out_features]"},
      {"HeadsDoNotDivide", [](R& r) { r.mutable_layer()->set_num_heads(5), r.mutable_layer()->set_num_kv_heads(1); },
       "layer.query_projection.weight.shape", "multiple of layer.num_heads, which is 5"},
      {"HeadsNegative", [](R& r) { r.mutable_layer()->set_num_heads(-4); }, "layer.num_heads", "is -4"},
      {"HeadsTooMany", [](R& r) { r.mutable_layer()->set_num_heads(1025); }, "layer.num_heads", "1024"},
      {"HeadsHuge", [](R& r) { r.mutable_layer()->set_num_heads(std::numeric_limits<std::int32_t>::max()); },
       "layer.num_heads", "2147483647"},
      {"KeyValueHeadsDoNotDivide", [](R& r) { r.mutable_layer()->set_num_kv_heads(3); }, "layer.num_kv_heads", "is 3"},
      {"KeyValueHeadsNegative", [](R& r) { r.mutable_layer()->set_num_kv_heads(-2); }, "layer.num_kv_heads", "is -2"},
      {"MaskOfOtherKeys",
       [](R& r) {
         *r.mutable_options()->mutable_mask() = BoolTensor({3, 3}, std::string(9, '\1'));
       },
       "options.mask.shape", "[2, 4, 3, 4]"},
      {"LengthBeyondTheContext",
       [](R& r) { r.mutable_options()->add_valid_lengths(4), r.mutable_options()->add_valid_lengths(5); },
       "options.valid_lengths[1]", "between 0 and 4"},
      {"OutputUnspecified", [](R& r) { r.add_outputs(v1::OUTPUT_KIND_UNSPECIFIED); }, "outputs[8]"},
      {"OutputUnknown", [](R& r) { r.add_outputs(static_cast<v1::OutputKind>(9)); }, "outputs[8]"},
  };
}

class SdpaRules : public ::testing::TestWithParam<Case<SdpaRequest>> {};
class AttendRules : public ::testing::TestWithParam<Case<AttendRequest>> {};

TEST_P(SdpaRules, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), FullSdpaRequest()); }
TEST_P(AttendRules, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), FullAttendRequest()); }

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Cases, SdpaRules, ::testing::ValuesIn(SdpaCases()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Cases, AttendRules, ::testing::ValuesIn(AttendCases()), kCaseName);

TEST(Decoders, GarbageIsMalformed) {
  for (const Decoder& decoder : {SdpaDecoder(), AttendDecoder(nullptr)}) {
    const absl::Status status = decoder(Sliced("\xFF\xFF\xFF", 0), Limits()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetails(status).reason, "MALFORMED_REQUEST");
  }
}

TEST(Decoders, ABufferWithoutContentsIsAnEmptyMessage) {
  EXPECT_EQ(GetErrorDetails(SdpaDecoder()(grpc::ByteBuffer(), Limits()).status()).field, "query");
  EXPECT_EQ(GetErrorDetails(AttendDecoder(nullptr)(grpc::ByteBuffer(), Limits()).status()).field, "embeddings");
}

// Finds the smallest limit that accepts the request, by the decoder's own verdicts.
template <typename Request, typename T>
T SmallestAccepted(const Request& request, T Limits::*limit, std::int64_t upper) {
  std::int64_t lower = 0;  // Refused.
  while (upper - lower > 1) {
    const std::int64_t middle = lower + (upper - lower) / 2;
    Limits limits;
    limits.*limit = static_cast<T>(middle);
    (Decode(request, limits).ok() ? upper : lower) = middle;
  }
  return static_cast<T>(upper);
}

template <typename Request, typename T>
void ExpectRefusedBelow(const Request& request, T Limits::*limit, T smallest, const std::string& flag) {
  Limits limits;
  limits.*limit = smallest;
  EXPECT_TRUE(Decode(request, limits).ok()) << flag << " at the limit: " << Decode(request, limits).status();
  limits.*limit = smallest - 1;
  const absl::Status status = Decode(request, limits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << flag;
  EXPECT_EQ(GetErrorDetails(status).reason, "LIMIT_EXCEEDED");
  EXPECT_THAT(GetErrorDetails(status).metadata, ElementsAre(Pair("flag", flag)));
  EXPECT_THAT(std::string(status.message()), HasSubstr(flag));
}

template <typename Request>
void ExpectEachLimitToTheUnit(const Request& request) {
  const auto bytes = static_cast<std::int64_t>(request.ByteSizeLong());
  const std::unique_ptr<Job> job = *Decode(request);
  ExpectRefusedBelow(request, &Limits::max_request_flops, job->flops(), "--max-request-flops");
  ASSERT_TRUE(job->Compute({}).ok());
  const auto response_bytes = static_cast<std::int64_t>(job->TakeResponse().Length());
  ExpectRefusedBelow(request, &Limits::max_response_bytes, response_bytes, "--max-response-bytes");
  const std::int64_t memory = SmallestAccepted(request, &Limits::max_request_memory_bytes, 1 << 20);
  ExpectRefusedBelow(request, &Limits::max_request_memory_bytes, memory, "--max-request-memory-bytes");
  // What must at least be there at once is the tensors' bytes, once in and once out; little more is, beside what one
  // thread needs for a panel of small heads.
  EXPECT_GE(memory, response_bytes * 9 / 10);
  EXPECT_LE(memory, bytes + response_bytes + 30 * 64 + (64 << 10));
}

TEST(Limits, EachIsExactToTheUnit) {
  ExpectEachLimitToTheUnit(FullSdpaRequest());
  ExpectEachLimitToTheUnit(FullAttendRequest());
}

// Claims of many gigabytes in a request of some hundred bytes: the address space must not even grow for a moment.
TEST(Decoders, ClaimsAloneTakeNoMemory) {
  std::vector<std::function<absl::Status()>> attempts;
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{1, 1, std::int64_t{1} << 40, 1},
                                                 {1, 1, 1, 1 << 30},
                                                 {1 << 14, 1, 1 << 14, 1},
                                                 {1 << 15, 1 << 14, 1, 1}}) {
    attempts.push_back([shape] {
      SdpaRequest request = FullSdpaRequest();
      for (v1::Tensor* tensor : {request.mutable_query(), request.mutable_key(), request.mutable_value()}) {
        *tensor->mutable_shape() = {shape.begin(), shape.end()};
      }
      return Decode(request).status();
    });
    attempts.push_back([shape] {
      SdpaRequest request = FullSdpaRequest();
      *request.mutable_options()->mutable_mask()->mutable_shape() = {shape.begin(), shape.end()};
      return Decode(request).status();
    });
    attempts.push_back([shape] {
      AttendRequest request = FullAttendRequest();
      v1::Tensor& weight = *request.mutable_layer()->mutable_query_projection()->mutable_weight();
      weight.set_shape(0, shape[0] * shape[1] * shape[2]);
      weight.set_shape(1, shape[3]);
      return Decode(request).status();
    });
  }
  // Honest inputs whose outputs are the bomb: 20000 x 20000 scores and weights.
  attempts.push_back([] {
    SdpaRequest request;
    *request.mutable_query() = *request.mutable_key() = *request.mutable_value() = RandomTensor({20000, 1}, 1);
    AskForAll(request);
    return Decode(request).status();
  });
  attempts.push_back([] {
    Limits limits;
    limits.max_response_bytes = kMax;
    AttendRequest request;
    *request.mutable_embeddings() = RandomTensor({20000, 1}, 1);
    AskForAll(request);
    return Decode(request, limits).status();
  });
  constexpr std::int64_t kSlack = 64 << 20;  // The allocator's and the sanitizers' own.
  const std::int64_t before = ProcessStatus("VmPeak");
  for (const auto& attempt : attempts) EXPECT_FALSE(attempt().ok());
  EXPECT_LT(ProcessStatus("VmPeak") - before, kSlack);
}

// Millions of elements of two bytes each that say nothing: what is kept must not multiply them.
TEST(Decoders, RepeatedSmallPartsTakeNoMemory) {
  constexpr std::size_t kBytes = 4 << 20;
  std::string empty_queries;
  for (std::size_t i = 0; i < kBytes / 2; ++i) empty_queries.append("\x0A\x00", 2);
  SdpaRequest shape, lengths, outputs;
  shape.mutable_query()->mutable_shape()->Resize(1 << 20, 1);
  lengths = FullSdpaRequest();
  lengths.mutable_options()->mutable_valid_lengths()->Resize(1 << 20, 1);
  outputs = FullSdpaRequest();
  outputs.mutable_outputs()->Resize(1 << 20, v1::OUTPUT_KIND_OUTPUT);
  outputs.add_outputs(v1::OUTPUT_KIND_QUERY);
  for (const std::string& bytes :
       {empty_queries, shape.SerializeAsString(), lengths.SerializeAsString(), outputs.SerializeAsString()}) {
    const grpc::ByteBuffer buffer = Sliced(bytes, 1 << 14);
    const std::int64_t before = ProcessStatus("VmPeak");
    EXPECT_EQ(SdpaDecoder()(buffer, Limits()).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_LT(ProcessStatus("VmPeak") - before, 4 << 20);
  }
}

}  // namespace
}  // namespace attend::server
