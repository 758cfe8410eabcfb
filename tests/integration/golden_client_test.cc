// Every PyTorch reference case through the C++ client and the built server: the way that a C++ program takes.
//
// The oracle is PyTorch in float64 (tests/data/golden). Results may differ from it by what the contract allows,
// 2e-6 * max|value| + 1e-6, with an output projection too: these have rows of norm below 1, which do not enlarge
// errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "client/lib/client.h"
#include "client/lib/tensor.h"
#include "tests/support/golden_file.h"
#include "tests/support/server_process.h"

namespace attend {
namespace {

using client::Tensor;
using testing::GoldenFile;
using testing::GoldenTensor;

constexpr double kWeightsTolerance = 3e-6;  // Attention whose values are the rows of the identity.

// One affine map of a golden file, as torch.nn.Linear lays it out.
struct Projection {
  std::vector<std::int64_t> shape;  // [out_features, in_features]
  std::vector<float> weight;
  std::vector<float> bias;
};

Projection WholeProjection(const GoldenFile& file, const std::string& name) {
  const GoldenTensor& weight = file.tensors.at(name + ".weight");
  return {weight.shape, weight.floats, file.tensors.at(name + ".bias").floats};
}

// The `index`-th third of PyTorch's stacked in_proj.
Projection StackedProjection(const GoldenFile& file, int index) {
  const GoldenTensor& weight = file.tensors.at("in_proj_weight");
  const std::int64_t rows = weight.shape[0] / 3, columns = weight.shape[1];
  const auto rows_begin = weight.floats.begin() + index * rows * columns;
  const auto bias_begin = file.tensors.at("in_proj_bias").floats.begin() + index * rows;
  return {{rows, columns}, {rows_begin, rows_begin + rows * columns}, {bias_begin, bias_begin + rows}};
}

enum class Form { kData, kValues };

void FillTensor(const std::vector<std::int64_t>& shape, const std::vector<float>& numbers, Form form,
                v1::Tensor* tensor) {
  ASSERT_TRUE(Tensor::FromFloats(shape, numbers).MoveTo(tensor).ok());
  if (form == Form::kData) return;
  tensor->clear_data();
  tensor->mutable_values()->Add(numbers.begin(), numbers.end());
}

void FillLinear(const Projection& projection, Form form, v1::Linear* linear) {
  FillTensor(projection.shape, projection.weight, form, linear->mutable_weight());
  FillTensor({projection.shape[0]}, projection.bias, form, linear->mutable_bias());
}

// A golden file as a request and what it must answer.
struct Case {
  v1::AttendRequest request;
  double output_tolerance = 0;
  std::vector<double> output;             // [.., T, D_out]
  std::vector<double> attention_weights;  // [.., H, T, S]; the notebook's has no axis H.
  std::int64_t num_heads = 1;
};

// 2e-6 * max|value| + 1e-6 for the values x . weight^T + bias of all tokens x.
double OutputTolerance(const GoldenTensor& tokens, const Projection& projection) {
  const std::size_t in = static_cast<std::size_t>(projection.shape[1]);
  double largest = 0;
  for (std::size_t token = 0; token < tokens.floats.size(); token += in) {
    for (std::size_t row = 0; row < projection.bias.size(); ++row) {
      double sum = projection.bias[row];
      for (std::size_t i = 0; i < in; ++i) sum += tokens.doubles[token + i] * projection.weight[row * in + i];
      largest = std::max(largest, std::abs(sum));
    }
  }
  return 2e-6 * largest + 1e-6;
}

Case NotebookCase(const GoldenFile& file, Form form) {
  Case result;
  const GoldenTensor& x = file.tensors.at("x");
  FillTensor(x.shape, x.floats, form, result.request.mutable_embeddings());
  v1::AttentionLayer& layer = *result.request.mutable_layer();
  FillLinear(WholeProjection(file, "query"), form, layer.mutable_query_projection());
  FillLinear(WholeProjection(file, "key"), form, layer.mutable_key_projection());
  const Projection value = WholeProjection(file, "value");
  FillLinear(value, form, layer.mutable_value_projection());
  result.output_tolerance = OutputTolerance(x, value);
  result.output = file.tensors.at("output_f64").doubles;
  result.attention_weights = file.tensors.at("attention_weights_f64").doubles;
  return result;
}

Case MultiHeadCase(const GoldenFile& file, bool cross, Form form) {
  Case result;
  const GoldenTensor& query = file.tensors.at("query");
  const GoldenTensor& context = file.tensors.at("key_value");
  FillTensor(query.shape, query.floats, form, result.request.mutable_embeddings());
  if (cross) FillTensor(context.shape, context.floats, form, result.request.mutable_context());
  v1::AttentionLayer& layer = *result.request.mutable_layer();
  FillLinear(StackedProjection(file, 0), form, layer.mutable_query_projection());
  FillLinear(StackedProjection(file, 1), form, layer.mutable_key_projection());
  const Projection value = StackedProjection(file, 2);
  FillLinear(value, form, layer.mutable_value_projection());
  FillLinear(WholeProjection(file, "out_proj"), form, layer.mutable_output_projection());
  result.num_heads = std::stoi(file.metadata.at("num_heads"));
  layer.set_num_heads(static_cast<std::int32_t>(result.num_heads));
  if (file.metadata.at("causal") == "bottom_right") {
    result.request.mutable_options()->set_causal(v1::CAUSAL_MODE_BOTTOM_RIGHT);
  }
  if (const auto lengths = file.tensors.find("valid_lengths"); lengths != file.tensors.end()) {
    result.request.mutable_options()->mutable_valid_lengths()->Add(lengths->second.int64s.begin(),
                                                                   lengths->second.int64s.end());
  }
  result.output_tolerance = OutputTolerance(context, value);
  result.output = file.tensors.at("output_f64").doubles;
  result.attention_weights = file.tensors.at("attention_weights_f64").doubles;
  return result;
}

Case ReadCase(const std::string& name, Form form) {
  const GoldenFile file = testing::ReadGoldenFile(name);
  Case result = name.rfind("notebook_", 0) == 0 ? NotebookCase(file, form)
                                                : MultiHeadCase(file, name.rfind("mha_cross", 0) == 0, form);
  result.request.add_outputs(v1::OUTPUT_KIND_OUTPUT);
  result.request.add_outputs(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  result.request.mutable_options()->set_attention_weights_form(v1::ATTENTION_WEIGHTS_FORM_PER_HEAD);
  return result;
}

void ExpectNear(v1::Tensor& proto, const std::vector<double>& expected, double tolerance, const char* what) {
  const absl::StatusOr<Tensor> tensor = Tensor::FromProto(std::move(proto));
  ASSERT_TRUE(tensor.ok()) << what << ": " << tensor.status();
  const std::vector<double> actual = tensor->ToDoubles();
  ASSERT_EQ(actual.size(), expected.size()) << what << ": " << tensor->Describe();
  std::size_t worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]), largest = std::abs(actual[worst] - expected[worst]);
    if (!(error <= largest)) worst = i;  // Also for NaN.
    ASSERT_FALSE(std::isnan(actual[i])) << what << ": element " << i;
  }
  EXPECT_NEAR(actual[worst], expected[worst], tolerance) << what << ": the worst element is " << worst;
}

// The mean over the heads of [.., H, T, S]; every golden file's T x S maps are counted from its end.
std::vector<double> AverageHeads(const Case& c, std::size_t map_size) {
  const std::size_t heads = static_cast<std::size_t>(c.num_heads);
  std::vector<double> mean(c.attention_weights.size() / heads);
  for (std::size_t i = 0; i < c.attention_weights.size(); ++i) {
    mean[i / (heads * map_size) * map_size + i % map_size] += c.attention_weights[i] / c.num_heads;
  }
  return mean;
}

class GoldenClientTest : public ::testing::TestWithParam<std::tuple<std::string, Form>> {
 protected:
  static void SetUpTestSuite() { server_ = new testing::ServerProcess(); }
  static void TearDownTestSuite() {
    EXPECT_EQ(server_->Terminate(), 0) << server_->standard_error();
    delete server_;
  }

  static v1::AttendResponse Attend(const v1::AttendRequest& request) {
    absl::StatusOr<client::Client> client = client::Client::Connect({.endpoints = {server_->address()}});
    EXPECT_TRUE(client.ok()) << client.status();
    auto answer = client->Attend(request, client::CallOptions(absl::Seconds(60)));
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? std::move(answer->response) : v1::AttendResponse();
  }

  static testing::ServerProcess* server_;
};

testing::ServerProcess* GoldenClientTest::server_ = nullptr;

TEST_P(GoldenClientTest, OutputAndWeightsAreThoseOfPyTorch) {
  const auto& [name, form] = GetParam();
  Case c = ReadCase(name, form);
  v1::AttendResponse response = Attend(c.request);
  ExpectNear(*response.mutable_output(), c.output, c.output_tolerance, "output");
  ExpectNear(*response.mutable_attention_weights(), c.attention_weights, kWeightsTolerance, "attention weights");
}

TEST_P(GoldenClientTest, AveragedWeightsAreTheMeanOverTheHeads) {
  const auto& [name, form] = GetParam();
  Case c = ReadCase(name, form);
  c.request.mutable_options()->clear_attention_weights_form();
  v1::AttendResponse response = Attend(c.request);
  const auto& shape = response.attention_weights().shape();
  ASSERT_GE(shape.size(), 2);
  const auto map_size = static_cast<std::size_t>(shape[shape.size() - 1] * shape[shape.size() - 2]);
  ExpectNear(*response.mutable_attention_weights(), AverageHeads(c, map_size), kWeightsTolerance, "averaged weights");
}

INSTANTIATE_TEST_SUITE_P(, GoldenClientTest,
                         ::testing::Combine(::testing::Values("notebook_5x64", "notebook_512x64", "notebook_3x17x96",
                                                              "mha_self_padding", "mha_self_causal",
                                                              "mha_cross_causal_7x33"),
                                            ::testing::Values(Form::kData, Form::kValues)),
                         [](const auto& parameters) {
                           return std::get<0>(parameters.param) +
                                  (std::get<1>(parameters.param) == Form::kData ? "_data" : "_values");
                         });

}  // namespace
}  // namespace attend
