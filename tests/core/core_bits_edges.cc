// The problems of core_bits in which a product, a bias or a sink is at an edge of float32's or float64's range, also
// where the scores themselves are not.
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/core/core_bits_cases.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {
namespace {

constexpr double kLowest = std::numeric_limits<double>::lowest();
constexpr std::int64_t kHeads = 2, kDim = 5, kValueDim = 3;

// Queries, keys and options of FLOAT64. Each head has one of the sinks.
struct Edge {
  const char* name;
  double query_factor, key_factor;
  bool all_scores_below;  // Queries are negative and keys positive.
  std::optional<double> scale, softcap;
  std::vector<double> sinks;
};

const Edge kEdges[] = {
    // Scores of about 16, by way of products of which most are beyond the range.
    {"softcap_of_overflow", 0x1p513, 0x1p513, false, 0x1p-1022, 8, {}},
    // Scores beyond the range, of which the softcap leaves numbers.
    {"softcap_of_scores_beyond", 0x1p512, 0x1p512, false, 1, 1.6e308, {}},
    {"softcap_of_overflow_and_sinks", 0x1p513, 0x1p513, false, 0x1p-1022, 8, {2, kLowest}},
    {"sinks_far_above", 1, 1, false, {}, {}, {1e300, 700}},
    {"sinks_far_below", 1, 1, false, {}, {}, {-1e300, -700}},
    {"sinks_above_scores_below_range", 0x1p600, 0x1p600, true, 1, {}, {2, kLowest}},
    {"scores_below_range", 0x1p600, 0x1p600, true, 1, {}, {}},
};

TypedTensor Scaled(const std::vector<float>& numbers, double factor, bool same_sign) {
  std::vector<double> wide(numbers.begin(), numbers.end());
  for (double& x : wide) x = (same_sign ? std::abs(x) + 0x1p-4 : x) * factor;
  return TypedTensor::From(wide, DataType::kFloat64);
}

SdpaCaseSpec Spec(std::int64_t queries, std::int64_t keys) {
  SdpaCaseSpec spec;
  spec.heads = kHeads, spec.queries = queries, spec.keys = keys;
  spec.head_dim = kDim, spec.value_dim = kValueDim;
  return spec;
}

std::vector<Part> ComputeDouble(const Edge& edge, const SdpaCaseSpec& s, InstructionSet set) {
  const SdpaCase c(s);
  const double sign = edge.all_scores_below ? -1 : 1;
  const TypedTensor q = Scaled(c.query, sign * edge.query_factor, edge.all_scores_below),
                    k = Scaled(c.key, edge.key_factor, edge.all_scores_below), v = Scaled(c.value, 1, false);
  const SdpaProblem problem = *SdpaProblem::Create(
      {q.View(1, kHeads, s.queries, kDim), k.View(1, 1, s.keys, kDim), v.View(1, 1, s.keys, kValueDim),
       AttentionOptions{.scale = edge.scale, .softcap = edge.softcap, .sinks = edge.sinks}});
  const auto rows = static_cast<std::size_t>(kHeads * s.queries);
  const auto tensor = [rows](std::int64_t width) {
    return TypedTensor(DataType::kFloat64, rows * static_cast<std::size_t>(width));
  };
  TypedTensor output = tensor(kValueDim), weights = tensor(s.keys), scores = tensor(s.keys);
  std::vector<float> log_sum_exp(rows);
  const SdpaOutputs to{.output = output.MutableView(1, kHeads, s.queries, kValueDim),
                       .attention_weights = weights.MutableView(1, kHeads, s.queries, s.keys),
                       .scores = scores.MutableView(1, kHeads, s.queries, s.keys),
                       .log_sum_exp = log_sum_exp.data()};
  ComputeContext context;
  context.instruction_set = set;
  if (!ComputeSdpa(problem, to, context).ok()) return {};
  return {{"output", output.Doubles()},
          {"log_sum_exp", Widened(log_sum_exp)},
          {"weights", weights.Doubles()},
          {"scores", scores.Doubles()}};
}

// A slope lifts keys whose bias is just below what float32 holds in units of log2 above those whose bias is within.
std::vector<Part> ComputeAlibiLift(const SdpaCaseSpec& spec, InstructionSet set) {
  SdpaCase c(spec);
  for (std::size_t i = 0; i < c.bias.size(); ++i) c.bias[i] = i % 2 == 0 ? -2.35867e38f : -2.35865e38f;
  for (std::size_t h = 0; h < c.alibi.size(); ++h) c.alibi[h] = h == 0 ? -3e34f : 3e34f;
  return PartsOf(c.Problem(), set);
}

// FLOAT32 takes a scale that takes its scores below float64's range.
std::vector<Part> ComputeSinksOfFloat32(const SdpaCaseSpec& spec, InstructionSet set) {
  SdpaCase c(spec);
  for (float& x : c.query) x = -(std::abs(x) + 1) * 1e20f;
  for (float& x : c.key) x = std::abs(x) + 1;
  c.options.scale = 1e300;
  c.sinks = {2, -std::numeric_limits<float>::max()};
  c.options.sinks = c.sinks;
  return PartsOf(c.Problem(), set);
}

}  // namespace

void AddNumberEdgeCases(std::vector<BitsCase>& cases) {
  for (const auto& [queries, keys] : {std::pair{1, 7}, {9, 70}, {40, 300}, {3, 1100}}) {
    const std::string shape = absl::StrCat(queries, "x", keys);
    SdpaCaseSpec spec = Spec(queries, keys);
    for (const Edge& edge : kEdges) {
      cases.push_back({absl::StrCat("edge_float64/", shape, "/", edge.name),
                       [edge, spec](InstructionSet set) { return ComputeDouble(edge, spec, set); }});
    }
    cases.push_back({absl::StrCat("edge_float32/", shape, "/sinks_above_scores_below_range"),
                     [spec](InstructionSet set) { return ComputeSinksOfFloat32(spec, set); }});
    spec.bias = spec.alibi = true;
    spec.causal = CausalMode::kBottomRight;
    cases.push_back({absl::StrCat("edge_float32/", shape, "/alibi_lift"),
                     [spec](InstructionSet set) { return ComputeAlibiLift(spec, set); }});
  }
}

}  // namespace attend::testing
