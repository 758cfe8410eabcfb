#include "tests/core/core_bits_cases.h"

#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/support/attend_case.h"
#include "tests/support/edge_of_range.h"
#include "tests/support/sdpa_case.h"

namespace attend::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  const char* name;
  std::int64_t heads, kv_heads, queries, keys, head_dim, value_dim;
};

// No axis is a multiple of any vector length where that is not the point; rows and keys lie on both sides of what the
// kernels treat differently: 4 to 16 lanes, 8 rows, 12 to 48 rows of a panel, 64 keys of a block, 1024 of a chunk.
constexpr Shape kShapes[] = {
    {"one", 1, 1, 1, 1, 1, 1},
    {"tiny", 1, 1, 1, 7, 3, 2},
    {"example", 1, 1, 5, 5, 64, 64},
    {"block_and_one", 2, 1, 3, 65, 17, 5},
    {"grouped", 6, 2, 17, 33, 20, 12},
    {"panel_and_one", 2, 2, 49, 130, 33, 47},
    {"square", 3, 1, 97, 201, 64, 64},
    {"decode_1500_grouped", 4, 1, 1, 1500, 65, 33},
    {"decode_2500", 2, 2, 1, 2500, 128, 128},
    {"nine_rows_two_chunks", 1, 1, 9, 1100, 7, 130},
    {"sixteen_rows_of_a_group", 8, 1, 2, 1100, 40, 24},
    {"prefill_two_chunks", 1, 1, 70, 1030, 130, 1},
    {"more_queries_than_keys", 2, 1, 41, 19, 16, 9},
};

struct Variant {
  const char* name;
  void (*apply)(SdpaCaseSpec&);
};

void Everything(SdpaCaseSpec& s) {
  s.batch = 2;
  s.causal = CausalMode::kBottomRight;
  s.window_left = s.keys * 3 / 4;
  s.softcap = 5.0f;
  s.mask = s.bias = s.alibi = s.sinks = s.misaligned = true;
  s.valid_lengths = {s.keys, (s.keys + 1) / 2};
}

constexpr Variant kVariants[] = {
    {"plain", [](SdpaCaseSpec&) {}},
    {"causal", [](SdpaCaseSpec& s) { s.causal = CausalMode::kBottomRight; }},
    {"causal_top_left", [](SdpaCaseSpec& s) { s.causal = CausalMode::kTopLeft; }},
    {"window", [](SdpaCaseSpec& s) { s.window_left = s.keys / 3, s.window_right = 2; }},
    {"softcap", [](SdpaCaseSpec& s) { s.softcap = 1.5f; }},
    {"softcap_large", [](SdpaCaseSpec& s) { s.softcap = 50.0f, s.magnitude = 20; }},
    {"alibi", [](SdpaCaseSpec& s) { s.alibi = true; }},
    {"sinks", [](SdpaCaseSpec& s) { s.sinks = true; }},
    {"mask", [](SdpaCaseSpec& s) { s.mask = true; }},
    {"bias", [](SdpaCaseSpec& s) { s.bias = true; }},
    {"mask_bias_broadcast", [](SdpaCaseSpec& s) { s.mask = s.bias = s.broadcast = true, s.batch = 2; }},
    {"lengths",
     [](SdpaCaseSpec& s) {
       s.batch = 3, s.valid_lengths = {s.keys, (s.keys + 2) / 3, 0};
     }},
    {"moving_maximum", [](SdpaCaseSpec& s) { s.magnitude = 12; }},
    {"underflow", [](SdpaCaseSpec& s) { s.magnitude = 60, s.scale = 3.0f; }},
    {"denormal_products", [](SdpaCaseSpec& s) { s.magnitude = 1e-20f, s.scale = 1.0f; }},
    {"overflow", [](SdpaCaseSpec& s) { s.magnitude = 1e19f, s.scale = 1.0f; }},
    {"everything", Everything},
};

// Numbers that are no numbers, put into a case after it was filled.
struct Poison {
  const char* name;
  void (*apply)(SdpaCase&);
};

constexpr Poison kPoisons[] = {
    {"nan_query", [](SdpaCase& c) { c.query[1] = kNan; }},
    {"nan_key", [](SdpaCase& c) { c.key[3] = kNan; }},
    {"infinite_key", [](SdpaCase& c) { c.key[2] = kInfinity; }},
    {"nan_value", [](SdpaCase& c) { c.value[4] = kNan; }},
    {"infinite_value", [](SdpaCase& c) { c.value[c.value.size() - 1] = -kInfinity; }},
    {"infinite_bias", [](SdpaCase& c) { c.bias[0] = kInfinity, c.bias[1] = -kInfinity; }},
    {"nan_sink", [](SdpaCase& c) { c.sinks[0] = kNan; }},
    {"infinite_sink", [](SdpaCase& c) { c.sinks[0] = kInfinity; }},
};

std::vector<Part> ComputeSdpaCase(const SdpaCase& sdpa_case, InstructionSet set) {
  return PartsOf(sdpa_case.Problem(), set);
}

SdpaCaseSpec SpecOf(const Shape& shape) {
  SdpaCaseSpec spec;
  spec.heads = shape.heads;
  spec.kv_heads = shape.kv_heads;
  spec.queries = shape.queries;
  spec.keys = shape.keys;
  spec.head_dim = shape.head_dim;
  spec.value_dim = shape.value_dim;
  return spec;
}

void AddVariants(const Shape& shape, std::vector<BitsCase>& cases) {
  for (const Variant& variant : kVariants) {
    SdpaCaseSpec spec = SpecOf(shape);
    variant.apply(spec);
    cases.push_back({absl::StrCat("sdpa/", shape.name, "/", variant.name),
                     [spec](InstructionSet set) { return ComputeSdpaCase(SdpaCase(spec), set); }});
  }
}

// With a mask, so that some of what is poisoned is masked and must not be noticed.
void AddPoisons(const Shape& shape, std::vector<BitsCase>& cases) {
  for (const Poison& poison : kPoisons) {
    SdpaCaseSpec spec = SpecOf(shape);
    spec.mask = spec.bias = spec.sinks = true;
    cases.push_back({absl::StrCat("sdpa/", shape.name, "/", poison.name), [spec, poison](InstructionSet set) {
                       SdpaCase poisoned(spec);
                       poison.apply(poisoned);
                       return ComputeSdpaCase(poisoned, set);
                     }});
  }
}

// Rows that are computed again in float64.
void AddEdges(const Shape& shape, std::vector<BitsCase>& cases) {
  for (const EdgeOfRange& edge : kEdgesOfRange) {
    SdpaCaseSpec spec = SpecOf(shape);
    edge.prepare(spec);
    cases.push_back({absl::StrCat("edge/", shape.name, "/", edge.name), [spec, edge](InstructionSet set) {
                       SdpaCase at_edge(spec);
                       edge.apply(at_edge);
                       return ComputeSdpaCase(at_edge, set);
                     }});
  }
}

std::vector<Part> ComputeAttendCase(const AttendSpec& spec, InstructionSet set) {
  const AttendCase attend_case(spec);
  const AttendProblem problem = attend_case.Problem();
  AttendResult result(problem);
  ComputeContext context;
  context.instruction_set = set;
  if (!ComputeAttend(problem, result.outputs, context).ok()) return {};
  return {{"output", Widened(result.output)},     {"query", Widened(result.query)},
          {"key", Widened(result.key)},           {"value", Widened(result.value)},
          {"weights", Widened(result.weights)},   {"scores", Widened(result.scores)},
          {"averaged", Widened(result.averaged)}, {"log_sum_exp", Widened(result.log_sum_exp)}};
}

void AddAttend(const AttendSpec& spec, std::string_view name, std::vector<BitsCase>& cases) {
  cases.push_back({absl::StrCat("attend/", absl::string_view(name.data(), name.size())),
                   [spec](InstructionSet set) { return ComputeAttendCase(spec, set); }});
}

// Projections of every shape around the tiles, and whole layers.
void AddProjections(std::vector<BitsCase>& cases) {
  for (std::int64_t tokens : {1, 2, 7, 9, 49}) {
    for (std::int64_t embed : {1, 17, 129, 300}) {
      AttendSpec spec;
      spec.queries = spec.keys = tokens;
      spec.embed = embed;
      spec.head_dim = 1 + embed % 23;
      spec.value_dim = 40 + tokens;
      AddAttend(spec, absl::StrCat("project_", tokens, "x", embed), cases);
    }
  }
}

void AddLayers(std::vector<BitsCase>& cases) {
  AttendSpec plain;
  plain.layer = false;
  AddAttend(plain, "no_layer", cases);
  AttendSpec cross;
  cross.batch = 2, cross.queries = 7, cross.keys = 33, cross.embed = 48, cross.context_embed = 20;
  cross.heads = 6, cross.kv_heads = 2, cross.head_dim = 8, cross.value_dim = 5, cross.output_dim = 50;
  cross.context = true;
  AddAttend(cross, "cross", cases);
  AttendSpec causal;
  causal.queries = causal.keys = 130, causal.embed = 200, causal.output_dim = 203;
  causal.heads = causal.kv_heads = 4, causal.head_dim = causal.value_dim = 50;
  causal.biases = false, causal.causal = CausalMode::kBottomRight;
  AddAttend(causal, "causal", cases);
}

}  // namespace

SdpaCaseSpec Spec(std::int64_t heads, std::int64_t kv_heads, std::int64_t queries, std::int64_t keys,
                  std::int64_t head_dim, std::int64_t value_dim) {
  SdpaCaseSpec spec;
  spec.heads = heads, spec.kv_heads = kv_heads;
  spec.queries = queries, spec.keys = keys;
  spec.head_dim = head_dim, spec.value_dim = value_dim;
  return spec;
}

std::vector<std::pair<const char*, SdpaCaseSpec>> FewShapes() {
  return {{"tiny", Spec(1, 1, 1, 7, 3, 2)},
          {"block_and_one", Spec(2, 1, 3, 65, 17, 5)},
          {"grouped", Spec(6, 2, 17, 33, 20, 12)},
          {"decode_1500_grouped", Spec(4, 1, 1, 1500, 65, 33)},
          {"nine_rows_two_chunks", Spec(1, 1, 9, 1100, 7, 130)},
          {"square", Spec(3, 1, 97, 201, 64, 64)}};
}

std::vector<Part> PartsOf(const SdpaProblem& problem, InstructionSet set) {
  SdpaResult result(problem);
  ComputeContext context;
  context.instruction_set = set;
  if (!ComputeSdpa(problem, result.Outputs(), context).ok()) return {};
  return {{"output", Widened(result.output)},
          {"log_sum_exp", Widened(result.log_sum_exp)},
          {"weights", Widened(result.weights)},
          {"scores", Widened(result.scores)},
          {"averaged", Widened(result.averaged)}};
}

std::vector<BitsCase> BitsCases() {
  std::vector<BitsCase> cases;
  for (const Shape& shape : kShapes) AddVariants(shape, cases);
  for (const char* name : {"block_and_one", "panel_and_one", "sixteen_rows_of_a_group"}) {
    for (const Shape& shape : kShapes) {
      if (std::string_view(shape.name) != name) continue;
      AddPoisons(shape, cases);
      AddEdges(shape, cases);
    }
  }
  AddProjections(cases);
  AddLayers(cases);
  AddTypedCases(cases);
  AddLayerCases(cases);
  AddInt8Cases(cases);
  AddNumberEdgeCases(cases);
  return cases;
}

}  // namespace attend::testing
