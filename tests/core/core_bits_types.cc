// The problems of core_bits in other types than FLOAT32, and those of ragged batches and top weights.
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/core/core_bits_cases.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {
namespace {

constexpr auto kF16 = DataType::kFloat16, kBF16 = DataType::kBFloat16, kF32 = DataType::kFloat32,
               kF64 = DataType::kFloat64;
constexpr std::int64_t kTop = 6;

struct Types {
  const char* name;
  DataType query, key, value;
};
constexpr Types kTypes[] = {{"float32", kF32, kF32, kF32},          {"bfloat16", kBF16, kBF16, kBF16},
                            {"float16", kF16, kF16, kF16},          {"float64", kF64, kF64, kF64},
                            {"bfloat16_cache", kF32, kBF16, kBF16}, {"mixed", kF16, kF32, kBF16}};

// A problem, its types, and where its sequences end; no sequences if there are no offsets.
struct TypedSpec {
  SdpaCaseSpec sdpa;
  Types types;
  bool top_per_head = true;
  std::vector<std::int64_t> query_offsets, key_offsets;
};

// FLOAT64 gets bits that FLOAT32 does not have.
TypedTensor Typed(const std::vector<float>& numbers, DataType type) {
  std::vector<double> wide(numbers.begin(), numbers.end());
  if (type == kF64) {
    for (std::size_t i = 0; i < wide.size(); ++i) wide[i] += 0x1p-40 * static_cast<double>(i * 37 % 101);
  }
  return TypedTensor::From(wide, type);
}

SdpaProblem MakeProblem(const TypedSpec& t, const SdpaCase& c, const TypedTensor& q, const TypedTensor& k,
                        const TypedTensor& v) {
  const SdpaCaseSpec& s = t.sdpa;
  AttentionOptions options = c.options;
  options.cumulative_query_lengths = t.query_offsets;
  options.cumulative_key_lengths = t.key_offsets;
  return *SdpaProblem::Create({q.View(s.batch, s.heads, s.queries, s.head_dim),
                               k.View(s.batch, s.kv_heads, s.keys, s.head_dim),
                               v.View(s.batch, s.kv_heads, s.keys, s.value_dim), options});
}

std::vector<Part> ComputeTyped(const TypedSpec& t, InstructionSet set) {
  const SdpaCase c(t.sdpa);
  const TypedTensor q = Typed(c.query, t.types.query), k = Typed(c.key, t.types.key), v = Typed(c.value, t.types.value);
  const SdpaProblem problem = MakeProblem(t, c, q, k, v);
  const std::int64_t b = problem.batch(), h = problem.num_heads(), rows = problem.query_length();
  const std::int64_t columns = problem.score_columns(), top_heads = t.top_per_head ? h : 1;
  const DataType arithmetic = problem.is_double() ? kF64 : kF32;
  const auto tensor = [&](DataType type, std::int64_t heads, std::int64_t width) {
    return TypedTensor(type, static_cast<std::size_t>(b * heads * rows * width));
  };
  TypedTensor output = tensor(t.types.query, h, problem.value_dim()), weights = tensor(arithmetic, h, columns);
  TypedTensor scores = weights, averaged = tensor(arithmetic, 1, columns), top = tensor(arithmetic, top_heads, kTop);
  std::vector<std::int32_t> indices(top.size());
  std::vector<float> log_sum_exp(static_cast<std::size_t>(b * h * rows));
  const SdpaOutputs to{
      output.MutableView(b, h, rows, problem.value_dim()),
      weights.MutableView(b, h, rows, columns),
      averaged.MutableView(b, 1, rows, columns),
      scores.MutableView(b, h, rows, columns),
      {top.MutableView(b, top_heads, rows, kTop), SplitHeads(indices.data(), b, top_heads, rows, kTop)},
      log_sum_exp.data()};
  ComputeContext context;
  context.instruction_set = set;
  if (!ComputeSdpa(problem, to, context).ok()) return {};
  return {{"output", output.Doubles()},     {"log_sum_exp", Widened(log_sum_exp)}, {"weights", weights.Doubles()},
          {"scores", scores.Doubles()},     {"averaged", averaged.Doubles()},      {"top", top.Doubles()},
          {"top_indices", Widened(indices)}};
}

void Add(const std::string& name, const TypedSpec& spec, std::vector<BitsCase>& cases) {
  cases.push_back({name, [spec](InstructionSet set) { return ComputeTyped(spec, set); }});
}

// Plain and with all options.
void AddTypes(std::vector<BitsCase>& cases) {
  for (const Types& types : kTypes) {
    for (const auto& [shape, plain] : FewShapes()) {
      SdpaCaseSpec all = plain;
      all.causal = CausalMode::kBottomRight;
      all.window_left = all.keys * 3 / 4;
      all.softcap = 5.0f;
      all.mask = all.bias = all.alibi = all.sinks = true;
      Add(absl::StrCat("types/", types.name, "/", shape, "/plain"), {plain, types, true, {}, {}}, cases);
      Add(absl::StrCat("types/", types.name, "/", shape, "/everything"), {all, types, false, {}, {}}, cases);
    }
  }
}

// Sequences around blocks and chunks, some without queries or keys.
void AddRagged(std::vector<BitsCase>& cases) {
  for (const Types& types : kTypes) {
    const SdpaCaseSpec plain = Spec(4, 2, 150, 1300, 19, 16);
    SdpaCaseSpec causal = plain;
    causal.causal = CausalMode::kBottomRight;
    causal.alibi = causal.sinks = true;
    const std::vector<std::int64_t> queries = {0, 3, 3, 80, 81, 150}, keys = {0, 65, 70, 140, 1240, 1300};
    Add(absl::StrCat("ragged/", types.name, "/plain"), {plain, types, true, queries, keys}, cases);
    Add(absl::StrCat("ragged/", types.name, "/causal"), {causal, types, false, queries, keys}, cases);
    const SdpaCaseSpec decode = Spec(4, 1, 4, 1200, 64, 64);
    Add(absl::StrCat("ragged/", types.name, "/decode"), {decode, types, true, {0, 1, 2, 3, 4}, {0, 1, 1, 100, 1200}},
        cases);
  }
}

}  // namespace

void AddTypedCases(std::vector<BitsCase>& cases) {
  AddTypes(cases);
  AddRagged(cases);
}

}  // namespace attend::testing
