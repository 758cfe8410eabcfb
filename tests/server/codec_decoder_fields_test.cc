// What the decoders say about types that do not mix, ragged batches, top weights and partial results.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "tests/support/decoder_cases.h"
#include "tests/support/example_requests.h"
#include "tests/support/typed_messages.h"

namespace attend::server {
namespace {

using R = v1::ScaledDotProductAttentionRequest;
using A = v1::AttendRequest;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr v1::DataType kDouble = v1::DATA_TYPE_FLOAT64;

// Of [1, H = 2, T = 6, E = 4], S = 9, V = 3, in three sequences, asking for top weights.
R RaggedRequest() {
  R request;
  *request.mutable_query() = RandomTensor({1, 2, 6, 4}, 1);
  *request.mutable_key() = RandomTensor({1, 1, 9, 4}, 2);
  *request.mutable_value() = RandomTensor({1, 1, 9, 3}, 3);
  request.add_outputs(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS);
  request.mutable_options()->set_top_k(3);
  for (const int end : {0, 2, 2, 6}) request.mutable_options()->add_cumulative_query_lengths(end);
  for (const int end : {0, 5, 8, 9}) request.mutable_options()->add_cumulative_key_lengths(end);
  return request;
}

void SetQueries(R& r, int i, std::int64_t end) { r.mutable_options()->set_cumulative_query_lengths(i, end); }
void SetKeys(R& r, int i, std::int64_t end) { r.mutable_options()->set_cumulative_key_lengths(i, end); }
void SetMask(R& r, std::int64_t queries, std::int64_t keys) {
  *r.mutable_options()->mutable_mask() =
      BoolTensor({queries, keys}, std::string(static_cast<std::size_t>(queries * keys), '\1'));
}

std::vector<Case<R>> RaggedCases() {
  const std::string queries = "options.cumulative_query_lengths", keys = "options.cumulative_key_lengths";
  return {
      {"AsItIs", [](R&) {}, ""},
      {"NoKeys", [](R& r) { r.mutable_options()->clear_cumulative_key_lengths(); }, keys, "has 0 entries"},
      {"NoQueries", [](R& r) { r.mutable_options()->clear_cumulative_query_lengths(); }, queries, "has 0 entries"},
      {"OneFewer", [](R& r) { r.mutable_options()->mutable_cumulative_key_lengths()->Truncate(3), SetKeys(r, 2, 9); },
       keys, "has 3 entries, but options.cumulative_query_lengths has 4"},
      {"NotFromZero", [](R& r) { SetQueries(r, 0, 1); }, queries + "[0]", "start with 0"},
      {"Falling", [](R& r) { SetKeys(r, 2, 4); }, keys + "[2]", "never fall"},
      {"WrongEnd", [](R& r) { SetKeys(r, 3, 10); }, keys + "[3]", "end with 9, the number of keys"},
      {"Huge", [](R& r) { SetQueries(r, 1, kMax); }, queries + "[2]"},
      {"Negative", [](R& r) { SetQueries(r, 1, -kMax); }, queries + "[1]"},
      {"ValidLengthsToo", [](R& r) { r.mutable_options()->add_valid_lengths(9); }, "options.valid_lengths",
       "both given"},
      {"ManyBatchEntries",
       [](R& r) {
         *r.mutable_query() = RandomTensor({2, 2, 6, 4}, 1), *r.mutable_key() = RandomTensor({2, 1, 9, 4}, 2),
         *r.mutable_value() = RandomTensor({2, 1, 9, 3}, 3);
       },
       queries, "there are 2 batch entries"},
      {"MoreThanAreCopied",
       [](R& r) { r.mutable_options()->mutable_cumulative_key_lengths()->Resize((1 << 16) + 2, 9); }, keys,
       "has 65538 entries; at most 65537"},
      {"MaskOfTheLongest", [](R& r) { SetMask(r, 6, 5); }, ""},
      {"MaskOfAllKeys", [](R& r) { SetMask(r, 6, 9); }, "options.mask.shape", "it must be [1, 2, 6, 5]"},
      {"NoTopK", [](R& r) { r.mutable_options()->clear_top_k(); }, "options.top_k", "between 1 and 1048576"},
      {"TopKNegative", [](R& r) { r.mutable_options()->set_top_k(-1); }, "options.top_k", "is -1"},
      {"TopKLargest", [](R& r) { r.mutable_options()->set_top_k(1 << 20); }, ""},
      {"TopKTooLarge", [](R& r) { r.mutable_options()->set_top_k((1 << 20) + 1); }, "options.top_k", "1048577"},
      {"TopKForNothing", [](R& r) { r.clear_outputs(); }, "options.top_k", "does not name"},
  };
}

v1::Tensor Trues(const std::vector<std::int64_t>& shape) {
  std::size_t size = 1;
  for (const std::int64_t axis : shape) size *= static_cast<std::size_t>(axis);
  return BoolTensor(shape, std::string(size, '\1'));
}

Case<R> MaskCase(const std::string& name, const std::vector<std::int64_t>& shape, const std::string& field = "",
                 const std::string& message = "") {
  return {name, [shape](R& r) { *r.mutable_options()->mutable_key_mask() = Trues(shape); }, field, message};
}

// Of B = 2 and S = 5.
std::vector<Case<R>> KeyMaskCases() {
  const std::string shape = "options.key_mask.shape";
  return {
      MaskCase("Full", {2, 5}),
      MaskCase("OfOneBatchEntry", {1, 5}),
      MaskCase("OfAllBatchEntries", {5}),
      MaskCase("OfWholeBatchEntries", {2, 1}),
      MaskCase("OneKeyTooFew", {2, 4}, shape, "is [2, 4]; it must be [2, 5] (batch, keys)"),
      MaskCase("OneKeyTooMany", {6}, shape, "is [1, 6]"),
      MaskCase("OtherBatch", {3, 5}, shape, "is [3, 5]"),
      MaskCase("OfThreeAxes", {2, 1, 5}, shape, "has 3 axes; it must be [S] or [B, S]"),
      {"OfFloats",
       [](R& r) {
         *r.mutable_options()->mutable_key_mask() = RandomTensor({2, 5}, 1);
       },
       "options.key_mask.data_type", "must be DATA_TYPE_BOOL"},
      {"Cut",
       [](R& r) {
         *r.mutable_options()->mutable_key_mask() = BoolTensor({2, 5}, std::string(9, '\1'));
       },
       "options.key_mask.data", "9 bytes"},
  };
}

void AddPartials(R& r, const std::vector<std::int64_t>& output, const std::vector<std::int64_t>& log_sum_exp) {
  r.clear_outputs();
  *r.mutable_partials()->mutable_output() = RandomTensor(output, 8);
  *r.mutable_partials()->mutable_log_sum_exp() = RandomTensor(log_sum_exp, 9);
}
void AddGood(R& r) { AddPartials(r, {2, 2, 4, 3, 7}, {2, 2, 4, 3}); }

// Of FullSdpaRequest: [B = 2, H = 4, T = 3, E = 6], K = 2, S = 5, V = 7.
std::vector<Case<R>> PartialCases() {
  return {
      {"TwoParts", AddGood, ""},
      {"Empty", [](R& r) { r.mutable_partials(); }, "partials.output", "is missing"},
      {"OutputAlone", [](R& r) { AddGood(r), r.mutable_partials()->clear_log_sum_exp(); }, "partials.log_sum_exp",
       "is missing"},
      {"WithoutParts",
       [](R& r) {
         AddPartials(r, {2, 4, 3, 7}, {2, 4, 3});
       },
       "partials.output.shape"},
      {"OtherHeads",
       [](R& r) {
         AddPartials(r, {2, 2, 2, 3, 7}, {2, 2, 2, 3});
       },
       "partials.output.shape", "it must be [2, 2, 4, 3, 7]"},
      {"OtherParts",
       [](R& r) {
         AddPartials(r, {2, 2, 4, 3, 7}, {3, 2, 4, 3});
       },
       "partials.log_sum_exp.shape", "it must be [2, 2, 4, 3]"},
      {"TooManyParts",
       [](R& r) {
         AddPartials(r, {1025, 2, 4, 3, 7}, {1025, 2, 4, 3});
       },
       "partials.output.shape[0]", "at most 1024"},
      {"Doubles", [](R& r) { AddGood(r), SetType(*r.mutable_partials()->mutable_output(), kDouble); },
       "partials.output.data_type", "must be DATA_TYPE_FLOAT32"},
      {"NarrowQuery", [](R& r) { AddGood(r), SetType(*r.mutable_query(), v1::DATA_TYPE_BFLOAT16); }, "partials",
       "query is DATA_TYPE_BFLOAT16"},
      {"NarrowCache", [](R& r) { AddGood(r), SetType(*r.mutable_key(), v1::DATA_TYPE_BFLOAT16); }, ""},
      {"WithWeights", [](R& r) { AddGood(r), r.add_outputs(v1::OUTPUT_KIND_ATTENTION_WEIGHTS); }, "partials",
       "names OUTPUT_KIND_ATTENTION_WEIGHTS"},
      {"WithScores", [](R& r) { AddGood(r), r.add_outputs(v1::OUTPUT_KIND_SCORES); }, "partials"},
  };
}

std::vector<Case<R>> TypeCases() {
  return {
      {"Mixed",
       [](R& r) {
         SetType(*r.mutable_query(), v1::DATA_TYPE_FLOAT16), SetType(*r.mutable_value(), v1::DATA_TYPE_BFLOAT16);
       },
       ""},
      {"DoubleQuery", [](R& r) { SetType(*r.mutable_query(), kDouble); }, "key.data_type", "FLOAT64 does not mix"},
      {"DoubleValue", [](R& r) { SetType(*r.mutable_value(), kDouble); }, "value.data_type", "FLOAT64 does not mix"},
      {"DoubleBias", [](R& r) { SetType(*r.mutable_options()->mutable_bias(), kDouble); }, "options.bias.data_type"},
      {"DoubleSlopes", [](R& r) { SetType(*r.mutable_options()->mutable_alibi_slopes(), kDouble); },
       "options.alibi_slopes.data_type"},
      {"Integers", [](R& r) { r.mutable_key()->set_data_type(v1::DATA_TYPE_INT32); }, "key.data_type",
       "key.data_type is DATA_TYPE_INT32"},
  };
}

std::vector<Case<A>> AttendCases() {
  return {
      {"DoubleContext", [](A& a) { SetType(*a.mutable_context(), kDouble); }, "context.data_type"},
      {"DoubleWeight", [](A& a) { SetType(*a.mutable_layer()->mutable_value_projection()->mutable_weight(), kDouble); },
       "layer.value_projection.weight.data_type"},
      {"DoubleBias", [](A& a) { SetType(*a.mutable_layer()->mutable_output_projection()->mutable_bias(), kDouble); },
       "layer.output_projection.bias.data_type"},
      {"NarrowWeight",
       [](A& a) { SetType(*a.mutable_layer()->mutable_key_projection()->mutable_weight(), v1::DATA_TYPE_FLOAT16); },
       ""},
      {"Ragged", [](A& a) { a.mutable_options()->add_cumulative_query_lengths(0); }, "options.cumulative_query_lengths",
       "there are 2 batch entries"},
      {"TopKWithoutAsking", [](A& a) { a.mutable_options()->set_top_k(1); }, "options.top_k"},
  };
}

class KeyMask : public ::testing::TestWithParam<Case<R>> {};
class Ragged : public ::testing::TestWithParam<Case<R>> {};
class Partials : public ::testing::TestWithParam<Case<R>> {};
class Types : public ::testing::TestWithParam<Case<R>> {};
class AttendFields : public ::testing::TestWithParam<Case<A>> {};

TEST_P(KeyMask, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), FullSdpaRequest()); }
TEST_P(Ragged, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), RaggedRequest()); }
TEST_P(Partials, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), FullSdpaRequest()); }
TEST_P(Types, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), FullSdpaRequest()); }
TEST_P(AttendFields, AcceptsOrBlamesTheField) { ExpectVerdict(GetParam(), FullAttendRequest()); }

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Cases, KeyMask, ::testing::ValuesIn(KeyMaskCases()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Cases, Ragged, ::testing::ValuesIn(RaggedCases()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Cases, Partials, ::testing::ValuesIn(PartialCases()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Cases, Types, ::testing::ValuesIn(TypeCases()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Cases, AttendFields, ::testing::ValuesIn(AttendCases()), kCaseName);

}  // namespace
}  // namespace attend::server
