// Attention over FLOAT16, BFLOAT16 and FLOAT64: what the types promise, however the computation is run.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "core/runtime/executor.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;
using testing::TypedTensor;

constexpr auto kF16 = DataType::kFloat16, kBF16 = DataType::kBFloat16, kF32 = DataType::kFloat32,
               kF64 = DataType::kFloat64;

struct Types {
  DataType query, key, value;
};
constexpr Types kMixtures[] = {
    {kBF16, kBF16, kBF16}, {kF16, kF16, kF16}, {kF32, kBF16, kBF16}, {kF32, kF16, kF32}, {kBF16, kF32, kF16},
};

// The tensors of an SdpaCase rounded to types of their own.
struct TypedCase {
  TypedCase(const SdpaCaseSpec& s, const Types& types)
      : spec(s),
        base(s),
        query(TypedTensor::From(base.query, types.query)),
        key(TypedTensor::From(base.key, types.key)),
        value(TypedTensor::From(base.value, types.value)) {}

  SdpaProblem Problem() const {
    return *SdpaProblem::Create({query.View(spec.batch, spec.heads, spec.queries, spec.head_dim),
                                 key.View(spec.batch, spec.kv_heads, spec.keys, spec.head_dim),
                                 value.View(spec.batch, spec.kv_heads, spec.keys, spec.value_dim), base.options});
  }
  // The same numbers as FLOAT32.
  SdpaProblem WideProblem() {
    wide_query = query.Floats(), wide_key = key.Floats(), wide_value = value.Floats();
    return *SdpaProblem::Create(
        {SplitHeads<const float>(wide_query.data(), spec.batch, spec.heads, spec.queries, spec.head_dim),
         SplitHeads<const float>(wide_key.data(), spec.batch, spec.kv_heads, spec.keys, spec.head_dim),
         SplitHeads<const float>(wide_value.data(), spec.batch, spec.kv_heads, spec.keys, spec.value_dim),
         base.options});
  }
  TypedTensor Output(DataType type) const {
    return {type, static_cast<std::size_t>(spec.batch * spec.heads * spec.queries * spec.value_dim)};
  }

  SdpaCaseSpec spec;
  SdpaCase base;
  TypedTensor query, key, value;
  std::vector<float> wide_query, wide_key, wide_value;
};

std::vector<SdpaCaseSpec> Specs() {
  std::vector<SdpaCaseSpec> specs;
  for (std::int64_t queries : {1, 5, 17, 60, 250}) {
    for (std::int64_t keys : {1, 33, 255, 257, 1100}) {
      if (queries == 250 && keys == 1100) continue;  // As much work as all others, with sanitizers minutes.
      SdpaCaseSpec spec;
      spec.batch = 2, spec.heads = 4, spec.kv_heads = 2;
      spec.queries = queries, spec.keys = keys;
      spec.head_dim = keys % 2 == 0 ? 64 : 19;
      spec.value_dim = queries % 2 == 0 ? 32 : 21;
      spec.seed = static_cast<std::uint64_t>(queries * 1000 + keys);
      if (queries % 3 == 0) spec.causal = CausalMode::kBottomRight;
      if (queries == 60) spec.window_left = 40, spec.mask = true;
      if (queries == 17) spec.alibi = spec.sinks = spec.bias = true;
      specs.push_back(spec);
    }
  }
  return specs;
}

// Widening is exact and the arithmetic FLOAT32's, so everything is what FLOAT32 gives, rounded once.
TEST(KernelsTypes, NarrowTensorsGiveTheBitsOfTheSameNumbersInFloat32) {
  for (const SdpaCaseSpec& spec : Specs()) {
    for (const Types& types : kMixtures) {
      SCOPED_TRACE(::testing::PrintToString(spec));
      TypedCase typed(spec, types);
      const SdpaProblem wide_problem = typed.WideProblem();
      SdpaResult wide(wide_problem), narrow(wide_problem);
      ASSERT_TRUE(ComputeSdpa(wide_problem, wide.Outputs(), {}).ok());
      TypedTensor output = typed.Output(types.query);
      SdpaOutputs outputs = narrow.Outputs();
      outputs.output = output.MutableView(spec.batch, spec.heads, spec.queries, spec.value_dim);
      ASSERT_TRUE(ComputeSdpa(typed.Problem(), outputs, {}).ok());
      EXPECT_TRUE(output == TypedTensor::From(wide.output, types.query));
      narrow.output = wide.output;
      EXPECT_TRUE(SameBits(wide, narrow));
    }
  }
}

TEST(KernelsTypes, NarrowTensorsGiveTheSameBitsOnEveryInstructionSetAndForAnyThreads) {
  Executor executor({.num_threads = 2});
  for (const SdpaCaseSpec& spec : Specs()) {
    const TypedCase typed(spec, kMixtures[0]);
    const SdpaProblem problem = typed.Problem();
    std::optional<TypedTensor> first;
    for (InstructionSet set : SupportedInstructionSets()) {
      if (!IsBitReproducible(set)) continue;
      for (Executor* helpers : {static_cast<Executor*>(nullptr), &executor}) {
        TypedTensor output = typed.Output(kBF16);
        const SdpaOutputs outputs{.output = output.MutableView(spec.batch, spec.heads, spec.queries, spec.value_dim)};
        ASSERT_TRUE(ComputeSdpa(problem, outputs, {.executor = helpers, .instruction_set = set}).ok());
        if (!first) first = output;
        EXPECT_TRUE(output == *first) << InstructionSetName(set) << " " << spec;
      }
    }
  }
}

// One unit in the last place of the type beside FLOAT32's bound, also without fused multiply-add.
TEST(KernelsTypes, NarrowOutputsAreWithinOneUnitInTheLastPlace) {
  for (const SdpaCaseSpec& spec : Specs()) {
    for (DataType type : {kF16, kBF16}) {
      const TypedCase typed(spec, {type, type, type});
      const SdpaProblem problem = typed.Problem();
      const ReferenceResult expected = ReferenceSdpa(problem);
      for (InstructionSet set : SupportedInstructionSets()) {
        TypedTensor output = typed.Output(type);
        const SdpaOutputs outputs{.output = output.MutableView(spec.batch, spec.heads, spec.queries, spec.value_dim)};
        ASSERT_TRUE(ComputeSdpa(problem, outputs, {.instruction_set = set}).ok());
        const std::vector<double> actual = output.Doubles();
        const double unit = type == kF16 ? 0x1p-10 : 0x1p-7;  // Of 1; values are below 1.
        for (std::size_t i = 0; i < actual.size(); ++i) {
          const double allowed = unit * std::max(std::abs(expected.output[i]), 0x1p-14) + 3e-6;
          ASSERT_NEAR(actual[i], expected.output[i], allowed) << i << " " << spec;
        }
      }
    }
  }
}

// Values whose masked rows hold NaN still give what masking promises, piece by piece widened or not.
TEST(KernelsTypes, MaskedNarrowValuesMayBeNaN) {
  SdpaCaseSpec spec;
  spec.queries = 60, spec.keys = 600;
  spec.causal = CausalMode::kTopLeft;
  TypedCase typed(spec, {kBF16, kBF16, kBF16});
  TypedTensor clean = typed.Output(kBF16), output = typed.Output(kBF16);
  const auto compute = [&](TypedTensor& to) {
    const SdpaOutputs outputs{.output = to.MutableView(1, 1, spec.queries, spec.value_dim)};
    ASSERT_TRUE(ComputeSdpa(typed.Problem(), outputs, {}).ok());
  };
  compute(clean);
  auto* values = reinterpret_cast<std::uint16_t*>(typed.value.bytes.data());
  for (std::int64_t i = spec.queries * spec.value_dim; i < spec.keys * spec.value_dim; ++i) values[i] = 0x7fc0;
  compute(output);
  EXPECT_TRUE(output == clean);
}

// Heads side by side, as a row of merged heads is as long as a widened copy's: what follows the last one is not read.
TEST(KernelsTypes, NarrowMergedHeadsGiveTheBitsOfSplitOnes) {
  SdpaCaseSpec spec;
  spec.heads = spec.kv_heads = 2, spec.queries = 9, spec.keys = 30;  // Of 8 numbers: 16 are a cache line of floats.
  const TypedCase typed(spec, {kBF16, kBF16, kBF16});
  const auto merged = [&](const TypedTensor& split, std::int64_t length) {
    std::vector<double> from = split.Doubles(), to(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      const auto row = static_cast<std::size_t>(length);
      to[i / 8 % row * 16 + i / (8 * row) * 8 + i % 8] = from[i];
    }
    return TypedTensor::From(to, kBF16);
  };
  const TypedTensor query = merged(typed.query, 9), key = merged(typed.key, 30), value = merged(typed.value, 30);
  const auto view = [](const TypedTensor& tensor, std::int64_t length) {
    TypedHeadsView heads = tensor.View(1, 2, length, 8);
    heads.head_stride = 8, heads.row_stride = 16;
    return heads;
  };
  TypedTensor expected = typed.Output(kBF16), output = typed.Output(kBF16);
  ASSERT_TRUE(ComputeSdpa(typed.Problem(), {.output = expected.MutableView(1, 2, 9, 8)}, {}).ok());
  const SdpaProblem problem = *SdpaProblem::Create({view(query, 9), view(key, 30), view(value, 30), {}});
  ASSERT_TRUE(ComputeSdpa(problem, {.output = output.MutableView(1, 2, 9, 8)}, {}).ok());
  EXPECT_TRUE(output == expected);
}

struct DoubleResult {
  explicit DoubleResult(const SdpaCaseSpec& s)
      : output(kF64, Size(s, s.value_dim)),
        weights(kF64, Size(s, s.keys)),
        scores(kF64, Size(s, s.keys)),
        averaged(kF64, Size(s, s.keys) / static_cast<std::size_t>(s.heads)),
        log_sum_exp(Size(s, 1)) {
    outputs.output = output.MutableView(s.batch, s.heads, s.queries, s.value_dim);
    outputs.attention_weights = weights.MutableView(s.batch, s.heads, s.queries, s.keys);
    outputs.scores = scores.MutableView(s.batch, s.heads, s.queries, s.keys);
    outputs.averaged_weights = averaged.MutableView(s.batch, 1, s.queries, s.keys);
    outputs.log_sum_exp = log_sum_exp.data();
  }
  DoubleResult(const DoubleResult&) = delete;
  static std::size_t Size(const SdpaCaseSpec& s, std::int64_t dim) {
    return static_cast<std::size_t>(s.batch * s.heads * s.queries * dim);
  }
  bool SameAs(const DoubleResult& other) const {
    return output == other.output && weights == other.weights && scores == other.scores && averaged == other.averaged &&
           SameBits(log_sum_exp, other.log_sum_exp);
  }

  TypedTensor output, weights, scores, averaged;
  std::vector<float> log_sum_exp;
  SdpaOutputs outputs;
};

// Both sides are float64 sums of some hundred terms in different orders; values are below 1 and scores below 100.
TEST(KernelsTypes, Float64IsAsGoodAsTheReference) {
  for (SdpaCaseSpec spec : Specs()) {
    if (spec.queries == 60) spec.softcap = 5.0f;
    const TypedCase typed(spec, {kF64, kF64, kF64});
    const SdpaProblem problem = typed.Problem();
    const ReferenceResult expected = ReferenceSdpa(problem);
    for (InstructionSet set : SupportedInstructionSets()) {
      SCOPED_TRACE(InstructionSetName(set));
      DoubleResult actual(spec);
      ASSERT_TRUE(ComputeSdpa(problem, actual.outputs, {.instruction_set = set}).ok());
      EXPECT_TRUE(AllNear(actual.output.Doubles(), expected.output, 1e-13));
      EXPECT_TRUE(AllNear(actual.weights.Doubles(), expected.attention_weights, 1e-13));
      EXPECT_TRUE(AllNear(actual.averaged.Doubles(), expected.averaged_weights, 1e-13));
      EXPECT_TRUE(AllNear(actual.scores.Doubles(), expected.scores, 1e-11));
      EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 1e-5));
    }
  }
}

TEST(KernelsTypes, Float64GivesTheSameBitsOnEveryInstructionSetAndForAnyThreads) {
  Executor executor({.num_threads = 3});
  for (const SdpaCaseSpec& spec : Specs()) {
    const TypedCase typed(spec, {kF64, kF64, kF64});
    const SdpaProblem problem = typed.Problem();
    DoubleResult first(spec);
    ASSERT_TRUE(ComputeSdpa(problem, first.outputs, {}).ok());
    for (InstructionSet set : SupportedInstructionSets()) {
      if (!IsBitReproducible(set)) continue;
      DoubleResult result(spec);
      ASSERT_TRUE(ComputeSdpa(problem, result.outputs, {.executor = &executor, .instruction_set = set}).ok());
      EXPECT_TRUE(result.SameAs(first)) << InstructionSetName(set) << " " << spec;
    }
  }
}

TEST(KernelsTypes, Float64MasksAndPropagatesAsFloat32Does) {
  SdpaCaseSpec spec;
  spec.queries = 4, spec.keys = 6, spec.valid_lengths = {3}, spec.value_dim = 3;
  TypedCase typed(spec, {kF64, kF64, kF64});
  auto* key = reinterpret_cast<double*>(typed.key.bytes.data());
  auto* value = reinterpret_cast<double*>(typed.value.bytes.data());
  for (int i = 3 * 8; i < 6 * 8; ++i) key[i] = NAN;
  for (int i = 3 * 3; i < 6 * 3; ++i) value[i] = NAN;
  DoubleResult masked(spec);
  ASSERT_TRUE(ComputeSdpa(typed.Problem(), masked.outputs, {}).ok());
  for (double x : masked.output.Doubles()) EXPECT_TRUE(std::isfinite(x));
  key[0] = NAN;
  DoubleResult poisoned(spec);
  ASSERT_TRUE(ComputeSdpa(typed.Problem(), poisoned.outputs, {}).ok());
  for (double x : poisoned.output.Doubles()) EXPECT_TRUE(std::isnan(x));
  spec.valid_lengths = {0};
  const TypedCase none(spec, {kF64, kF64, kF64});
  DoubleResult empty(spec);
  ASSERT_TRUE(ComputeSdpa(none.Problem(), empty.outputs, {}).ok());
  for (double x : empty.output.Doubles()) EXPECT_EQ(x, 0);
  for (float x : empty.log_sum_exp) EXPECT_EQ(x, -INFINITY);
}

TEST(KernelsTypes, TypesThatDoNotMixAreRefused) {
  const SdpaCaseSpec spec;
  const struct {
    Types types;
    const char* field;
  } cases[] = {{{kF64, kF32, kF64}, "key.data_type"},
               {{kF32, kF32, kF64}, "value.data_type"},
               {{kF16, kF64, kF64}, "key.data_type"},
               {{kF64, kF64, kBF16}, "value.data_type"}};
  for (const auto& c : cases) {
    const TypedCase typed(spec, c.types);
    const auto problem = SdpaProblem::Create(
        {typed.query.View(1, 1, 1, 8), typed.key.View(1, 1, 1, 8), typed.value.View(1, 1, 1, 8), {}});
    EXPECT_EQ(problem.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(problem.status().message().find(c.field), std::string::npos) << problem.status();
  }
}

}  // namespace
}  // namespace attend
