// The client library against a real server: what one sends the other understands, details and receipt included.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/io/safetensors.h"
#include "client/lib/attend_stream.h"
#include "client/lib/client.h"
#include "client/lib/cost_hint.h"
#include "client/lib/server_error.h"
#include "client/lib/tensor.h"
#include "server/requests/decoders.h"
#include "tests/support/test_server.h"

namespace attend::client {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Key;

const CallOptions kCall(absl::Seconds(30));

void Place(SafetensorsReader& file, const std::string& name, v1::Tensor* message) {
  ASSERT_TRUE((*file.Read(name)).MoveTo(message).ok()) << name;
}

TEST(ClientAndServer, AgreeWithPyTorchOnTheNotebook) {
  testing::TestServer server;
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  ASSERT_TRUE(client.ok()) << client.status();
  absl::StatusOr<SafetensorsReader> file =
      SafetensorsReader::Open(std::string(ATTEND_TEST_DATA) + "/golden/notebook_512x64.safetensors");
  v1::AttendRequest request;
  Place(*file, "x", request.mutable_embeddings());
  const std::pair<const char*, v1::Linear*> projections[] = {
      {"query", request.mutable_layer()->mutable_query_projection()},
      {"key", request.mutable_layer()->mutable_key_projection()},
      {"value", request.mutable_layer()->mutable_value_projection()}};
  for (const auto& [name, linear] : projections) {
    Place(*file, std::string(name) + ".weight", linear->mutable_weight());
    Place(*file, std::string(name) + ".bias", linear->mutable_bias());
  }
  absl::StatusOr<CallResult<v1::AttendResponse>> answer = client->Attend(request, kCall);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->server_timing, Contains(Field(&StageTime::name, "compute")));
  const absl::StatusOr<Tensor> output = Tensor::FromProto(std::move(*answer->response.mutable_output()));
  ASSERT_TRUE(output.ok()) << output.status();
  const std::vector<double> expected = file->Read("output_f64")->ToDoubles();
  ASSERT_EQ(output->floats().size(), expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::abs(output->floats()[i] - expected[i]));
  constexpr double kMaxValue = 2.4688;  // max|x . W_v^T + b_v| of this case, by NumPy.
  EXPECT_LE(worst, 2e-6 * kMaxValue + 1e-6);
}

TEST(ClientAndServer, ARefusalNamesTheField) {
  testing::TestServer server;
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  v1::ScaledDotProductAttentionRequest request;
  const std::vector<float> values(6, 1);
  ASSERT_TRUE(Tensor::FromFloats({2, 3}, values).MoveTo(request.mutable_query()).ok());
  ASSERT_TRUE(Tensor::FromFloats({3, 2}, values).MoveTo(request.mutable_key()).ok());
  ASSERT_TRUE(Tensor::FromFloats({3, 2}, values).MoveTo(request.mutable_value()).ok());
  const absl::Status status = client->ScaledDotProductAttention(request, kCall).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(AnsweredByServer(status));
  const ServerError error = GetServerError(status);
  EXPECT_EQ(error.domain, "attend.v1");
  ASSERT_EQ(error.field_violations.size(), 1u);
  EXPECT_THAT(error.field_violations[0].field, HasSubstr("key"));
  EXPECT_THAT(error.server_timing, Contains(Field(&StageTime::name, "receive")));
}

TEST(ClientAndServer, ALimitIsNamedAndNotRepeated) {
  server::ServerConfig config = testing::TestConfig();
  config.limits.max_request_bytes = 1 << 20;
  testing::TestServer server(config);
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  const absl::StatusOr<CallResult<v1::GetServerInfoResponse>> info = client->GetServerInfo(kCall);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->response.limits().max_request_bytes(), 1 << 20);
  v1::AttendRequest request;
  const std::vector<float> values(1 << 19, 1);
  ASSERT_TRUE(Tensor::FromFloats({1 << 10, 1 << 9}, values).MoveTo(request.mutable_embeddings()).ok());
  const absl::Status status = client->Attend(request, kCall).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(GetServerError(status).metadata, Contains(Key("flag")));
  EXPECT_FALSE(GetServerError(status).retry_delay.has_value());
}

TEST(ClientAndServer, HealthIsUnderstood) {
  testing::TestServer server;
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  ASSERT_TRUE(client->WaitUntilConnected(kCall).ok());
  for (const char* service : {"", "attend.v1.AttentionService", "liveness", "readiness"}) {
    const absl::StatusOr<HealthState> state = client->CheckHealth(service, kCall);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(*state, HealthState::kServing) << service;
  }
  EXPECT_EQ(client->CheckHealth("nobody", kCall).status().code(), absl::StatusCode::kNotFound);
}

void SetShape(std::initializer_list<std::int64_t> shape, v1::Tensor* tensor) {
  std::int64_t elements = 1;
  for (const std::int64_t axis : shape) {
    tensor->add_shape(axis);
    elements *= axis;
  }
  tensor->set_data(std::string(static_cast<std::size_t>(4 * elements), '\0'));
}

// What the server makes of the request's bytes.
template <typename Request>
double FlopsInServer(const server::Decoder& decode, const Request& request) {
  const grpc::Slice slice(request.SerializeAsString());
  const auto job = decode(grpc::ByteBuffer(&slice, 1), server::Limits());
  EXPECT_TRUE(job.ok()) << job.status();
  return job.ok() ? (*job)->flops() : 0;
}

TEST(CostHint, SaysWhatTheServerWillCount) {
  const auto expect_near = [](const std::optional<std::string>& hint, double flops) {
    ASSERT_TRUE(hint.has_value());
    EXPECT_NEAR(std::stod(*hint), flops, 0.006 * flops) << "three digits";
  };
  v1::ScaledDotProductAttentionRequest sdpa;
  SetShape({2, 4, 100, 16}, sdpa.mutable_query());
  SetShape({2, 2, 300, 16}, sdpa.mutable_key());
  SetShape({2, 2, 300, 8}, sdpa.mutable_value());
  expect_near(CostHint(sdpa), FlopsInServer(server::SdpaDecoder(), sdpa));
  sdpa.mutable_options()->set_causal(v1::CAUSAL_MODE_NONE);
  expect_near(CostHint(sdpa), FlopsInServer(server::SdpaDecoder(), sdpa));
  sdpa.mutable_options()->set_causal(v1::CAUSAL_MODE_BOTTOM_RIGHT);
  expect_near(CostHint(sdpa), FlopsInServer(server::SdpaDecoder(), sdpa));
  v1::ScaledDotProductAttentionRequest tokens_first = sdpa;  // The same problem.
  tokens_first.set_layout(v1::TENSOR_LAYOUT_BTHE);
  for (v1::Tensor* tensor : {tokens_first.mutable_query(), tokens_first.mutable_key(), tokens_first.mutable_value()}) {
    tensor->mutable_shape()->SwapElements(1, 2);
  }
  EXPECT_EQ(CostHint(tokens_first), CostHint(sdpa));

  v1::AttendRequest attend;
  SetShape({3, 200, 12}, attend.mutable_embeddings());
  expect_near(CostHint(attend), FlopsInServer(server::AttendDecoder(nullptr), attend));
  SetShape({3, 50, 20}, attend.mutable_context());
  v1::AttentionLayer& layer = *attend.mutable_layer();
  layer.set_num_heads(4);
  layer.set_num_kv_heads(2);
  SetShape({32, 12}, layer.mutable_query_projection()->mutable_weight());
  SetShape({16, 20}, layer.mutable_key_projection()->mutable_weight());
  SetShape({16, 20}, layer.mutable_value_projection()->mutable_weight());
  SetShape({12, 32}, layer.mutable_output_projection()->mutable_weight());
  expect_near(CostHint(attend), FlopsInServer(server::AttendDecoder(nullptr), attend));
  layer.clear_num_heads();  // 1.
  layer.set_num_kv_heads(1);
  layer.clear_key_projection(), layer.clear_output_projection();
  SetShape({32, 20}, layer.mutable_key_projection()->mutable_weight());
  SetShape({12, 16}, layer.mutable_output_projection()->mutable_weight());
  expect_near(CostHint(attend), FlopsInServer(server::AttendDecoder(nullptr), attend));
  attend.set_layer_name("minilm/0");
  EXPECT_FALSE(CostHint(attend).has_value()) << "only the server knows its heads, mask and window";
  v1::AttendRequest small;
  small.set_layer_name("minilm/0");
  SetShape({1, 5, 4}, small.mutable_embeddings());
  EXPECT_EQ(CostHint(small), "400") << "what is small whatever its mask is said to be so";
  small.clear_embeddings();
  SetShape({1, 1, 4096}, small.mutable_embeddings());
  EXPECT_FALSE(CostHint(small).has_value()) << "one token's projections are not small";
}

v1::ScaledDotProductAttentionRequest SdpaOf(std::int64_t batch, std::int64_t queries, std::int64_t keys) {
  v1::ScaledDotProductAttentionRequest request;
  SetShape({batch, 1, queries, 4}, request.mutable_query());
  SetShape({batch, 1, keys, 4}, request.mutable_key());
  SetShape({batch, 1, keys, 4}, request.mutable_value());
  return request;
}

server::Decoder DecoderOf(const v1::ScaledDotProductAttentionRequest&) { return server::SdpaDecoder(); }
server::Decoder DecoderOf(const v1::AttendRequest&) { return server::AttendDecoder(nullptr); }

// The hint is the server's count, to its three digits.
template <typename Request>
void ExpectTheServersCount(const Request& request) {
  const double flops = FlopsInServer(DecoderOf(request), request);
  const std::optional<std::string> hint = CostHint(request);
  ASSERT_EQ(hint.has_value(), flops > 0) << request.options().ShortDebugString();
  EXPECT_NEAR(std::stod(hint.value_or("0")), flops, 0.006 * flops) << request.options().ShortDebugString();
}

// With all kinds of causality and windows, and of a batch of two entries with and without valid lengths.
template <typename Request>
void ExpectTheServersCounts(Request request, std::int64_t keys) {
  constexpr std::int64_t kAbsent = -1, kEndless = std::numeric_limits<std::int64_t>::max();
  v1::AttentionOptions& options = *request.mutable_options();
  for (const v1::CausalMode causal :
       {v1::CAUSAL_MODE_UNSPECIFIED, v1::CAUSAL_MODE_NONE, v1::CAUSAL_MODE_BOTTOM_RIGHT, v1::CAUSAL_MODE_TOP_LEFT}) {
    for (const std::int64_t left : {kAbsent, std::int64_t{0}, std::int64_t{7}, kEndless}) {
      for (const std::int64_t right : {kAbsent, std::int64_t{0}, std::int64_t{3}, kEndless}) {
        options.Clear();
        options.set_causal(causal);
        if (left != kAbsent) options.set_sliding_window_left(left);
        if (right != kAbsent) options.set_sliding_window_right(right);
        ExpectTheServersCount(request);
        options.add_valid_lengths(0);
        options.add_valid_lengths(keys - 5);
        ExpectTheServersCount(request);
      }
    }
  }
}

TEST(CostHint, CountsWhatCausalityWindowsAndValidLengthsLeave) {
  for (const auto& [queries, keys] : {std::pair{40, 90}, {90, 40}, {50, 50}, {1, 70}}) {
    ExpectTheServersCounts(SdpaOf(2, queries, keys), keys);
    v1::AttendRequest attend;
    SetShape({2, queries, 4}, attend.mutable_embeddings());
    SetShape({2, keys, 4}, attend.mutable_context());
    ExpectTheServersCounts(attend, keys);
  }
  v1::AttendRequest self_attention;
  SetShape({2, 60, 4}, self_attention.mutable_embeddings());
  ExpectTheServersCounts(self_attention, 60);
}

TEST(CostHint, CountsEachSequenceOfARaggedBatch) {
  v1::ScaledDotProductAttentionRequest request = SdpaOf(1, 100, 300);
  for (const int begin : {0, 30, 30, 100}) request.mutable_options()->add_cumulative_query_lengths(begin);
  for (const int begin : {0, 100, 150, 300}) request.mutable_options()->add_cumulative_key_lengths(begin);
  ExpectTheServersCount(request);
  request.mutable_options()->set_causal(v1::CAUSAL_MODE_TOP_LEFT);
  request.mutable_options()->set_sliding_window_left(9);
  ExpectTheServersCount(request);
  v1::AttendRequest attend;
  SetShape({100, 4}, attend.mutable_embeddings());
  for (const int begin : {0, 20, 100}) attend.mutable_options()->add_cumulative_query_lengths(begin);
  ExpectTheServersCount(attend);
  EXPECT_EQ(FlopsInServer(server::AttendDecoder(nullptr), attend), 2 * (4 + 4) * (20 * 20 + 80 * 80));
}

// A window that only one side has, and queries before the first key, counted by hand.
TEST(CostHint, NeverCountsWhatIsHidden) {
  v1::ScaledDotProductAttentionRequest request = SdpaOf(1, 1000, 1000);
  request.mutable_options()->set_causal(v1::CAUSAL_MODE_BOTTOM_RIGHT);
  request.mutable_options()->set_sliding_window_left(0);
  EXPECT_EQ(std::stod(CostHint(request).value_or("0")), 2 * (4 + 4) * 1000) << "each query sees its own key";
  request.mutable_options()->Clear();
  request.mutable_options()->add_valid_lengths(1);
  EXPECT_EQ(std::stod(CostHint(request).value_or("0")), 2 * (4 + 4) * 1000) << "each query sees the first key";
  request = SdpaOf(1, 1, 1000);
  request.mutable_options()->set_causal(v1::CAUSAL_MODE_TOP_LEFT);
  EXPECT_EQ(std::stod(CostHint(request).value_or("0")), 2 * (4 + 4)) << "the first query sees the first key";
}

TEST(CostHint, IsAbsentWhereTheShapesSayNothing) {
  v1::ScaledDotProductAttentionRequest request;
  request.mutable_query()->add_shape(-5);
  EXPECT_FALSE(CostHint(request).has_value());
  SetShape({2, 10, 4}, request.mutable_key());
  request.mutable_query()->clear_shape();
  SetShape({2, 10, 4}, request.mutable_query());
  EXPECT_TRUE(CostHint(request).has_value());
  request = SdpaOf(2, 10, 10);
  request.mutable_options()->add_valid_lengths(10);
  EXPECT_FALSE(CostHint(request).has_value()) << "one length for two entries";
  request.mutable_options()->add_valid_lengths(11);
  EXPECT_FALSE(CostHint(request).has_value()) << "more valid keys than there are";
  request = SdpaOf(1, 10, 10);
  for (const std::int64_t begin :
       {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    request.mutable_options()->add_cumulative_query_lengths(begin);
    EXPECT_FALSE(CostHint(request).has_value()) << begin;
  }
}

TEST(ClientAndServer, AStreamCarriesBothKindsAndResultsHaveReceipts) {
  testing::TestServer server;
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  v1::AttendRequest attend;
  SetShape({3, 4}, attend.mutable_embeddings());
  v1::ScaledDotProductAttentionRequest sdpa;
  SetShape({2, 4}, sdpa.mutable_query());
  SetShape({3, 4}, sdpa.mutable_key());
  SetShape({3, 5}, sdpa.mutable_value());
  v1::ScaledDotProductAttentionRequest bad = sdpa;
  bad.mutable_query()->set_shape(1, 3);
  const auto stream = client->StreamAttend(kCall);
  ASSERT_TRUE(stream.ok()) << stream.status();
  ASSERT_TRUE((*stream)->Send(1, attend).ok() && (*stream)->Send(2, sdpa).ok() && (*stream)->Send(3, bad).ok());
  (*stream)->CloseSending();
  std::map<std::int64_t, StreamResult> results;
  while (std::optional<StreamResult> result = (*stream)->Receive()) results.emplace(result->id, *std::move(result));
  EXPECT_TRUE((*stream)->Finish().ok());
  ASSERT_EQ(results.size(), 3u);
  ASSERT_TRUE(results[1].response.ok() && results[2].sdpa_response.ok());
  EXPECT_THAT(results[1].response->output().shape(), ElementsAre(3, 4));
  EXPECT_THAT(results[2].sdpa_response->output().shape(), ElementsAre(2, 5));
  EXPECT_TRUE(absl::IsFailedPrecondition(results[1].sdpa_response.status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(results[2].response.status()));
  const absl::Status refused = client->ScaledDotProductAttention(bad, kCall).status();
  for (const absl::Status& status : {results[3].response.status(), results[3].sdpa_response.status()}) {
    EXPECT_EQ(status.message(), refused.message());
    EXPECT_EQ(GetServerError(status).field_violations.size(), 1u);
  }
  EXPECT_FALSE(results[1].response->receipt().kernel().empty());
  EXPECT_EQ(results[1].response->receipt().SerializeAsString(),
            results[2].sdpa_response->receipt().SerializeAsString());
  const auto info = client->GetServerInfo(kCall);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(results[1].response->receipt().server_version(), info->response.version());
}

TEST(ClientAndServer, EstimatesNeedNoContents) {
  testing::TestServer server;
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  v1::ScaledDotProductAttentionRequest sdpa;
  SetShape({2, 4, 100, 16}, sdpa.mutable_query());
  SetShape({2, 2, 300, 16}, sdpa.mutable_key());
  SetShape({2, 2, 300, 8}, sdpa.mutable_value());
  SetShape({100, 300}, sdpa.mutable_options()->mutable_bias());
  v1::EstimateCostRequest request;
  *request.mutable_scaled_dot_product_attention() = sdpa;
  DescribeOnly(&request);
  EXPECT_LT(request.ByteSizeLong(), 100u);
  const auto cost = client->EstimateCost(request, kCall);
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_EQ(cost->response.flops(), FlopsInServer(server::SdpaDecoder(), sdpa));
  EXPECT_EQ(cost->response.request_bytes(), static_cast<std::int64_t>(sdpa.ByteSizeLong()));
  EXPECT_TRUE(cost->response.admissible());
}

TEST(ClientAndServer, TheHintArrives) {
  server::ServerConfig config = testing::TestConfig();
  config.threads = 1;
  testing::TestServer server(config);
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.address()}});
  v1::AttendRequest request;
  SetShape({4, 4}, request.mutable_embeddings());
  request.mutable_embeddings()->set_shape(0, std::int64_t{1} << 21);  // Would take minutes, if it was true.
  const absl::Status status = client->Attend(request, CallOptions(absl::Seconds(20))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_EQ(GetServerError(status).reason, "DEADLINE_TOO_SHORT") << "refused before the shape was checked";
}

}  // namespace
}  // namespace attend::client
