// From request bytes to response bytes: the right tensors reach the core, its results come back in the right shape and
// form, and the response is what protobuf itself would have written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/compute/compute_sdpa.h"
#include "core/reference/reference.h"
#include "server/requests/decoders.h"
#include "tests/support/decoder_cases.h"
#include "tests/support/example_requests.h"
#include "tests/support/reader_vs_protobuf.h"
#include "tests/support/same_bits.h"
#include "tests/support/tensor_messages.h"

namespace attend::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Axes = std::vector<std::int64_t>;

void ExpectClose(const v1::Tensor& actual, const std::vector<double>& expected, const char* what) {
  const std::vector<float> values = Elements(actual);
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == expected[i]) continue;  // Infinities.
    ASSERT_NEAR(values[i], expected[i], 2e-5) << what << " at " << i;
  }
}

void ExpectSameBits(const v1::Tensor& actual, const v1::Tensor& expected) {
  EXPECT_EQ(Shape(actual), Shape(expected));
  EXPECT_TRUE(attend::testing::SameBits(Elements(actual), Elements(expected)));
}

// The same problem built by hand, with no codec.
ReferenceResult FullSdpaReference(const v1::ScaledDotProductAttentionRequest& request) {
  const std::vector<float> q = Elements(request.query()), k = Elements(request.key()), v = Elements(request.value());
  const std::vector<float> bias = Elements(request.options().bias());
  const std::vector<float> slopes = Elements(request.options().alibi_slopes()),
                           sinks = Elements(request.options().sinks());
  const std::vector<std::int64_t> lengths = {5, 4};
  const auto* mask = reinterpret_cast<const std::uint8_t*>(request.options().mask().data().data());
  const AttentionOptions options = {.scale = 0.7f,
                                    .causal = CausalMode::kBottomRight,
                                    .sliding_window_left = 3,
                                    .softcap = 3.0f,
                                    .valid_lengths = lengths,
                                    .mask = SplitHeads(mask, 2, 1, 3, 5),
                                    .bias = SplitHeads(bias.data(), 1, 4, 1, 5),
                                    .alibi_slopes = slopes,
                                    .sinks = sinks};
  const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(
      {SplitHeads(q.data(), 2, 4, 3, 6), SplitHeads(k.data(), 2, 2, 5, 6), SplitHeads(v.data(), 2, 2, 5, 7), options});
  EXPECT_TRUE(problem.ok()) << problem.status();
  return ReferenceSdpa(*problem);
}

TEST(SdpaResponse, EveryTensorAndOptionReachesTheCoreAndComesBack) {
  const v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  const ReferenceResult expected = FullSdpaReference(request);
  const v1::ScaledDotProductAttentionResponse response = CallSdpa(request);
  EXPECT_THAT(Shape(response.output()), ElementsAre(2, 4, 3, 7));
  EXPECT_THAT(Shape(response.attention_weights()), ElementsAre(2, 4, 3, 5));
  EXPECT_THAT(Shape(response.log_sum_exp()), ElementsAre(2, 4, 3));
  EXPECT_THAT(Shape(response.scores()), ElementsAre(2, 4, 3, 5));
  ExpectClose(response.output(), expected.output, "output");
  ExpectClose(response.attention_weights(), expected.attention_weights, "attention_weights");
  ExpectClose(response.log_sum_exp(), expected.log_sum_exp, "log_sum_exp");
  ExpectClose(response.scores(), expected.scores, "scores");
}

TEST(SdpaResponse, AveragedWeightsHaveNoHeads) {
  v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  request.mutable_options()->clear_attention_weights_form();
  const v1::ScaledDotProductAttentionResponse response = CallSdpa(request);
  EXPECT_THAT(Shape(response.attention_weights()), ElementsAre(2, 3, 5));
  ExpectClose(response.attention_weights(), FullSdpaReference(request).averaged_weights, "averaged");
  request.mutable_options()->set_attention_weights_form(v1::ATTENTION_WEIGHTS_FORM_AVERAGED);
  ExpectSameBits(CallSdpa(request).attention_weights(), response.attention_weights());
}

// Wherever the transport cuts the message, the same bits come back.
TEST(SdpaResponse, SlicesDoNotMatter) {
  const v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  const std::string whole = CallSdpa(request).SerializeAsString();
  for (const std::size_t slice_size : {1, 2, 3, 7, 16, 100, 1000}) {
    EXPECT_TRUE(CallSdpa(request, slice_size).SerializeAsString() == whole) << slice_size;
  }
}

// Numbers and bytes say the same; the response follows the form of the first tensor alone.
TEST(SdpaResponse, ValuesGiveTheBitsOfDataAndComeBackAsValues) {
  const v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  const v1::ScaledDotProductAttentionResponse expected = CallSdpa(request);
  v1::ScaledDotProductAttentionRequest in_values = request;
  v1::AttentionOptions& options = *in_values.mutable_options();
  for (v1::Tensor* tensor : {in_values.mutable_query(), in_values.mutable_key(), in_values.mutable_value(),
                             options.mutable_bias(), options.mutable_alibi_slopes(), options.mutable_sinks()}) {
    UseValues(*tensor);
  }
  for (const char byte : options.mask().data()) options.mutable_mask()->add_values(static_cast<float>(byte) * 0.25f);
  options.mutable_mask()->clear_data();
  const v1::ScaledDotProductAttentionResponse response = CallSdpa(in_values, 5);
  EXPECT_THAT(response.output().data(), IsEmpty());
  EXPECT_EQ(response.output().values_size(), 2 * 4 * 3 * 7);
  ExpectSameBits(response.output(), expected.output());
  ExpectSameBits(response.attention_weights(), expected.attention_weights());
  ExpectSameBits(response.log_sum_exp(), expected.log_sum_exp());
  ExpectSameBits(response.scores(), expected.scores());

  v1::ScaledDotProductAttentionRequest only_key = request;
  UseValues(*only_key.mutable_key());
  EXPECT_TRUE(CallSdpa(only_key).SerializeAsString() == expected.SerializeAsString());
}

TEST(SdpaResponse, OutputAloneByDefault) {
  v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  const v1::Tensor expected = CallSdpa(request).output();
  request.clear_outputs();
  const v1::ScaledDotProductAttentionResponse response = CallSdpa(request);
  EXPECT_FALSE(response.has_attention_weights() || response.has_log_sum_exp() || response.has_scores());
  ExpectSameBits(response.output(), expected);
}

TEST(SdpaResponse, OutputIsAbsentWhenOthersAreNamed) {
  v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  request.clear_outputs();
  request.add_outputs(v1::OUTPUT_KIND_LOG_SUM_EXP);
  const v1::ScaledDotProductAttentionResponse response = CallSdpa(request);
  EXPECT_FALSE(response.has_output() || response.has_attention_weights() || response.has_scores());
  EXPECT_TRUE(response.has_log_sum_exp());
}

// NaN among true values must count as true, zero of either sign as false.
TEST(SdpaResponse, MaskValuesAreTrueUnlessZero) {
  v1::ScaledDotProductAttentionRequest request;
  *request.mutable_query() = RandomTensor({1, 4}, 1);
  *request.mutable_key() = RandomTensor({5, 4}, 2);
  *request.mutable_value() = RandomTensor({5, 4}, 3);
  request.add_outputs(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  v1::Tensor& mask = *request.mutable_options()->mutable_mask();
  mask.add_shape(1);
  mask.add_shape(5);
  for (const float value : {0.0f, -0.0f, std::nanf(""), std::numeric_limits<float>::denorm_min(), -1.0f})
    mask.add_values(value);
  const std::vector<float> weights = Elements(CallSdpa(request).attention_weights());
  EXPECT_THAT(std::vector<bool>({weights[0] > 0, weights[1] > 0, weights[2] > 0, weights[3] > 0, weights[4] > 0}),
              ElementsAre(false, false, true, true, true));
}

// Split across two submessages, protobuf sees one tensor; so do we, up to the bits of the result.
TEST(SdpaResponse, ATensorInTwoPartsIsOneTensor) {
  v1::ScaledDotProductAttentionRequest request = FullSdpaRequest();
  UseValues(*request.mutable_query());
  const std::string expected = CallSdpa(request).SerializeAsString();
  v1::ScaledDotProductAttentionRequest first = request, second;
  v1::Tensor& head = *first.mutable_query();
  v1::Tensor& tail = *second.mutable_query();
  tail.add_shape(head.shape(3));
  tail.mutable_values()->Add(head.values().begin() + 100, head.values().end());
  head.mutable_shape()->RemoveLast();
  head.mutable_values()->Truncate(100);
  const std::string bytes = first.SerializeAsString() + second.SerializeAsString();
  absl::StatusOr<std::unique_ptr<Job>> job = SdpaDecoder()(Sliced(bytes, 11), Limits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE((*job)->Compute({}).ok());
  EXPECT_TRUE(Join((*job)->TakeResponse()) == expected);
}

struct SdpaShapeCase {
  Axes query, key, value, output, per_head, averaged, log_sum_exp;
};

TEST(SdpaResponse, AxesAreThoseOfTheQuery) {
  for (const SdpaShapeCase& c : {
           SdpaShapeCase{{3, 4}, {5, 4}, {5, 6}, {3, 6}, {3, 5}, {3, 5}, {3}},
           SdpaShapeCase{{2, 3, 4}, {1, 5, 4}, {1, 5, 6}, {2, 3, 6}, {2, 3, 5}, {3, 5}, {2, 3}},
           SdpaShapeCase{{7, 2, 3, 4}, {7, 2, 5, 4}, {7, 2, 5, 6}, {7, 2, 3, 6}, {7, 2, 3, 5}, {7, 3, 5}, {7, 2, 3}},
           SdpaShapeCase{{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
       }) {
    v1::ScaledDotProductAttentionRequest request;
    *request.mutable_query() = RandomTensor(c.query, 1);
    *request.mutable_key() = RandomTensor(c.key, 2);
    *request.mutable_value() = RandomTensor(c.value, 3);
    AskForAll(request);
    v1::ScaledDotProductAttentionResponse response = CallSdpa(request);
    EXPECT_EQ(Shape(response.output()), c.output);
    EXPECT_EQ(Shape(response.attention_weights()), c.averaged);
    EXPECT_EQ(Shape(response.log_sum_exp()), c.log_sum_exp);
    EXPECT_EQ(Shape(response.scores()), c.per_head);
    request.mutable_options()->set_attention_weights_form(v1::ATTENTION_WEIGHTS_FORM_PER_HEAD);
    EXPECT_EQ(Shape(CallSdpa(request).attention_weights()), c.per_head);
  }
}

struct LinearData {
  explicit LinearData(const v1::Linear& linear)
      : weight(Elements(linear.weight())), bias(Elements(linear.bias())), shape(Shape(linear.weight())) {}
  LinearView View() const { return {weight.data(), bias.data(), shape[0], shape[1]}; }

  std::vector<float> weight, bias;
  std::vector<std::int64_t> shape;
};

ReferenceResult FullAttendReference(const v1::AttendRequest& request) {
  const std::vector<float> embeddings = Elements(request.embeddings()), context = Elements(request.context());
  const LinearData q(request.layer().query_projection()), k(request.layer().key_projection()),
      v(request.layer().value_projection()), o(request.layer().output_projection());
  const absl::StatusOr<AttendProblem> problem =
      AttendProblem::Create({.embeddings = {embeddings.data(), 2, 3, 6},
                             .context = {context.data(), 2, 4, 5},
                             .layer = LayerView{q.View(), k.View(), v.View(), o.View(), 4, 2},
                             .options = {}});
  EXPECT_TRUE(problem.ok()) << problem.status();
  return ReferenceAttend(*problem);
}

TEST(AttendResponse, EveryTensorReachesTheCoreAndComesBack) {
  v1::AttendRequest request = FullAttendRequest();
  const ReferenceResult expected = FullAttendReference(request);
  for (const std::size_t slice_size : {0, 13}) {
    const v1::AttendResponse response = CallAttend(request, slice_size);
    EXPECT_THAT(Shape(response.output()), ElementsAre(2, 3, 7));
    EXPECT_THAT(Shape(response.attention_weights()), ElementsAre(2, 3, 4));
    EXPECT_THAT(Shape(response.log_sum_exp()), ElementsAre(2, 4, 3));
    EXPECT_THAT(Shape(response.query()), ElementsAre(2, 4, 3, 3));
    EXPECT_THAT(Shape(response.key()), ElementsAre(2, 2, 4, 3));
    EXPECT_THAT(Shape(response.value()), ElementsAre(2, 2, 4, 2));
    EXPECT_THAT(Shape(response.scores()), ElementsAre(2, 4, 3, 4));
    ExpectClose(response.output(), expected.output, "output");
    ExpectClose(response.attention_weights(), expected.averaged_weights, "averaged_weights");
    ExpectClose(response.log_sum_exp(), expected.log_sum_exp, "log_sum_exp");
    ExpectClose(response.query(), expected.query, "query");
    ExpectClose(response.key(), expected.key, "key");
    ExpectClose(response.value(), expected.value, "value");
    ExpectClose(response.scores(), expected.scores, "scores");
  }
  request.mutable_options()->set_attention_weights_form(v1::ATTENTION_WEIGHTS_FORM_PER_HEAD);
  const v1::AttendResponse response = CallAttend(request);
  EXPECT_THAT(Shape(response.attention_weights()), ElementsAre(2, 4, 3, 4));
  ExpectClose(response.attention_weights(), expected.attention_weights, "attention_weights");
}

TEST(AttendResponse, WithoutALayerEmbeddingsAttendToThemselves) {
  v1::AttendRequest request;
  *request.mutable_embeddings() = RandomTensor({5, 8}, 1);
  AskForAll(request);
  const v1::AttendResponse response = CallAttend(request);
  EXPECT_THAT(Shape(response.output()), ElementsAre(5, 8));
  EXPECT_THAT(Shape(response.attention_weights()), ElementsAre(5, 5));
  EXPECT_THAT(Shape(response.log_sum_exp()), ElementsAre(1, 5));
  EXPECT_THAT(Shape(response.query()), ElementsAre(1, 5, 8));
  EXPECT_EQ(Elements(response.query()), Elements(request.embeddings()));
  EXPECT_EQ(Elements(response.key()), Elements(request.embeddings()));
  EXPECT_EQ(Elements(response.value()), Elements(request.embeddings()));

  // Which is attention over the embeddings as query, key and value.
  v1::ScaledDotProductAttentionRequest sdpa;
  *sdpa.mutable_query() = *sdpa.mutable_key() = *sdpa.mutable_value() = request.embeddings();
  ExpectSameBits(response.output(), CallSdpa(sdpa).output());
}

TEST(AttendResponse, HeadsDefaultToOneAndKeyValueHeadsToHeads) {
  v1::AttendRequest request = FullAttendRequest();
  v1::AttentionLayer& layer = *request.mutable_layer();
  *layer.mutable_key_projection()->mutable_weight() = RandomTensor({12, 5}, 21);
  layer.mutable_key_projection()->clear_bias();
  *layer.mutable_value_projection()->mutable_weight() = RandomTensor({8, 5}, 22);
  layer.mutable_value_projection()->clear_bias();
  layer.clear_num_kv_heads();
  EXPECT_THAT(Shape(CallAttend(request).key()), ElementsAre(2, 4, 4, 3));
  layer.clear_num_heads();
  EXPECT_THAT(Shape(CallAttend(request).key()), ElementsAre(2, 1, 4, 12));
}

TEST(AttendResponse, ValuesComeBackAsValues) {
  v1::AttendRequest request = FullAttendRequest();
  const v1::AttendResponse expected = CallAttend(request);
  UseValues(*request.mutable_embeddings());
  UseValues(*request.mutable_layer()->mutable_output_projection()->mutable_bias());
  const v1::AttendResponse response = CallAttend(request);
  EXPECT_EQ(response.query().values_size(), 2 * 4 * 3 * 3);
  EXPECT_THAT(response.query().data(), IsEmpty());
  ExpectSameBits(response.output(), expected.output());
}

TEST(Job, CancelledComputationsReportIt) {
  const std::atomic<bool> cancelled = true;
  v1::ScaledDotProductAttentionRequest request;
  *request.mutable_query() = *request.mutable_key() = *request.mutable_value() = RandomTensor({600, 64}, 1);
  absl::StatusOr<std::unique_ptr<Job>> job = SdpaDecoder()(Sliced(request.SerializeAsString(), 0), Limits());
  ASSERT_TRUE(job.ok());
  EXPECT_EQ((*job)->Compute({.cancelled = &cancelled}).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace attend::server
