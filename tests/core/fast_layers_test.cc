// PRECISION_FAST of layers in BFLOAT16: which are computed so, that they are the fast attention over projected numbers
// rounded once, how exact they are, and that their bits depend on nothing but the problem. Where the processor lacks
// the instructions, that FAST is EXACT is all there is to test.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/compute/workspace.h"
#include "core/layer/projection.h"
#include "core/reference/reference.h"
#include "core/runtime/executor.h"
#include "tests/support/fast_families.h"
#include "tests/support/guarded_memory.h"
#include "tests/support/layer_case.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::LayerCase;
using testing::LayerResult;
using testing::LayerSpec;
using testing::NormOver;
using testing::QuickRandom;
using testing::TypedTensor;

constexpr auto kBF16 = DataType::kBFloat16, kF32 = DataType::kFloat32, kF16 = DataType::kFloat16;

class FastLayers : public testing::ForEachFastFamily {};

LayerSpec Base() {
  LayerSpec spec;
  spec.type = spec.weight_type = kBF16;
  spec.queries = spec.keys = 60, spec.embed = 130;
  spec.heads = 4, spec.kv_heads = 2, spec.head_dim = 24, spec.value_dim = 18;
  return spec;
}

// A LayerCase with an output projection of 50 features and a bias, that asks for PRECISION_FAST.
struct FastLayer {
  explicit FastLayer(const LayerSpec& s, DataType output_type = kBF16)
      : base(s),
        weight(TypedTensor::From(Random(50 * s.heads * s.value_dim, 0.3f), output_type)),
        bias(TypedTensor::From(Random(50, 1), kF32)) {
    spec = base.ProblemSpec();
    spec.options.precision = Precision::kFast;
    spec.layer->output = {weight.bytes.data(), bias.bytes.data(), 50, s.heads * s.value_dim, output_type, kF32};
  }

  AttendProblem Problem() const {
    absl::StatusOr<AttendProblem> problem = AttendProblem::Create(spec);
    EXPECT_TRUE(problem.ok()) << problem.status();
    return *std::move(problem);
  }

  static std::vector<float> Random(std::int64_t size, float scale) {
    std::vector<float> numbers(static_cast<std::size_t>(size));
    QuickRandom(7).Fill(numbers, scale);
    return numbers;
  }

  LayerCase base;
  TypedTensor weight, bias;
  AttendProblem::Spec spec;
};

void Compute(const AttendProblem& problem, LayerResult& result, FastKernels fast, Executor* executor = nullptr) {
  ASSERT_TRUE(ComputeAttend(problem, result.outputs, {.executor = executor, .fast_kernels = fast}).ok());
}

double RootMeanSquare(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

std::vector<LayerSpec> Specs() {
  LayerSpec plain = Base(), one = Base(), wide = Base(), norms = Base(), ragged = Base(), cross = Base();
  one.queries = one.keys = 1, one.heads = one.kv_heads = 1;
  wide.embed = 600, wide.head_dim = 64, wide.value_dim = 64, wide.batch = 2, wide.causal = CausalMode::kBottomRight;
  norms.query_norm = norms.key_norm = NormOver::kHead, norms.rotary_dim = 16, norms.causal = CausalMode::kBottomRight;
  ragged.query_offsets = {0, 3, 3, 40, 60}, ragged.rotary_dim = 24;
  cross.context = true, cross.keys = 301, cross.queries = 7, cross.batch = 2, cross.valid_lengths = {9, 301};
  return {plain, one, wide, norms, ragged, cross};
}

TEST_P(FastLayers, AreThoseWhoseTokensAndWeightsAreBFloat16InPairs) {
  const auto family = [](const FastLayer& layer) { return FastKernelsOf(layer.Problem(), Here()); };
  EXPECT_EQ(family(FastLayer(Base())), Here());
  LayerSpec tokens = Base(), weights = Base(), embed = Base(), head = Base(), value = Base();
  tokens.type = kF32, weights.weight_type = kF16, embed.embed = 131, head.head_dim = 23;
  value.heads = value.kv_heads = 1, value.value_dim = 17;  // What the output projection reads.
  for (const LayerSpec& spec : {tokens, weights, embed, head, value}) {
    EXPECT_EQ(family(FastLayer(spec)), FastKernels::kNone) << spec;
  }
  EXPECT_EQ(family(FastLayer(Base(), kF32)), FastKernels::kNone);
  FastLayer exact(Base());
  exact.spec.options.precision = Precision::kExact;
  EXPECT_EQ(family(exact), FastKernels::kNone);
}

TEST_P(FastLayers, OthersHaveTheBitsOfExact) {
  LayerSpec odd = Base();
  odd.embed = 131;
  for (const LayerSpec& spec : {odd, Base()}) {
    FastLayer layer(spec);
    LayerResult fast(layer.Problem()), exact(layer.Problem());
    Compute(layer.Problem(), fast, spec.embed == 131 ? Here() : FastKernels::kNone);
    layer.spec.options.precision = Precision::kExact;
    Compute(layer.Problem(), exact, Here());
    EXPECT_TRUE(fast == exact);
  }
}

// Otherwise the tests below would compare EXACT with itself.
TEST_P(FastLayers, ComputeWhereTheInstructionsAre) {
  const FastLayer layer(Base());
  LayerResult fast(layer.Problem()), exact(layer.Problem());
  Compute(layer.Problem(), fast, Here());
  Compute(layer.Problem(), exact, FastKernels::kNone);
  EXPECT_EQ(fast.output == exact.output, Here() == FastKernels::kNone);
}

// Queries, keys and values are the float64 ones rounded once: half a unit in the last place, and float32's own error.
TEST_P(FastLayers, ProjectedNumbersAreRoundedOnce) {
  for (const LayerSpec& spec : Specs()) {
    const FastLayer layer(spec);
    const AttendProblem problem = layer.Problem();
    const ReferenceResult expected = ReferenceAttend(problem);
    LayerResult actual(problem);
    Compute(problem, actual, Here());
    const auto check = [&](const TypedTensor& tensor, const std::vector<double>& numbers) {
      const std::vector<double> rounded = tensor.Doubles();
      ASSERT_EQ(rounded.size(), numbers.size());
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        EXPECT_NEAR(rounded[i], numbers[i], 0x1.01p-8 * std::abs(numbers[i]) + 2e-5) << spec << ", element " << i;
      }
    };
    check(actual.query, expected.query);
    check(actual.key, expected.key);
    check(actual.value, expected.value);
  }
}

// With what fast_kernels_test.cc says of attention, that bounds the error of the whole.
TEST_P(FastLayers, AttendOverTheirRoundedNumbers) {
  for (const LayerSpec& spec : Specs()) {
    FastLayer layer(spec);
    layer.spec.layer->output = {};  // Heads side by side.
    const AttendProblem problem = layer.Problem();
    LayerResult actual(problem);
    Compute(problem, actual, Here());
    const auto heads = [&](const TypedTensor& tensor, std::int64_t count, std::int64_t length, std::int64_t dim) {
      return tensor.View(spec.batch, count, length, dim);
    };
    const absl::StatusOr<SdpaProblem> sdpa =
        SdpaProblem::Create({heads(actual.query, spec.heads, spec.queries, spec.head_dim),
                             heads(actual.key, spec.kv_heads, spec.keys, spec.head_dim),
                             heads(actual.value, spec.kv_heads, spec.keys, spec.value_dim), problem.options()});
    ASSERT_TRUE(sdpa.ok()) << sdpa.status();
    TypedTensor output(kBF16, actual.output.size());
    SdpaOutputs outputs;
    outputs.output = MergedTypedHeads(static_cast<void*>(output.bytes.data()), kBF16, spec.batch, spec.heads,
                                      spec.queries, spec.value_dim);
    ASSERT_TRUE(ComputeSdpa(*sdpa, outputs, {.fast_kernels = Here()}).ok());
    // Where FAST is EXACT, heads are not rounded.
    if (Here() != FastKernels::kNone) {
      EXPECT_TRUE(output == actual.output) << spec;
    }
  }
}

std::vector<double> Rounded(const std::vector<double>& numbers) { return TypedTensor::From(numbers, kBF16).Doubles(); }

// What a program computes that keeps every tensor in BFLOAT16 between its steps and the weights too, as PyTorch does,
// with float64 instead of float32 within the steps.
std::vector<double> StepsInBFloat16(const FastLayer& layer, const ReferenceResult& exact) {
  const LayerSpec& s = layer.base.spec;
  const std::vector<double> q = Rounded(exact.query), k = Rounded(exact.key), v = Rounded(exact.value);
  const std::vector<double> weight = layer.weight.Doubles(), bias = layer.bias.Doubles();
  std::vector<double> output;
  for (std::int64_t t = 0; t < s.queries; ++t) {
    std::vector<double> merged;
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const std::int64_t kv = h * s.kv_heads / s.heads;
      std::vector<double> scores;
      for (std::int64_t j = 0; j < s.keys; ++j) {
        double sum = 0;
        for (std::int64_t e = 0; e < s.head_dim; ++e) {
          sum += q[(h * s.queries + t) * s.head_dim + e] * k[(kv * s.keys + j) * s.head_dim + e];
        }
        scores.push_back(sum / std::sqrt(static_cast<double>(s.head_dim)));
      }
      const double max = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - max);
      scores = Rounded(scores);
      for (std::int64_t e = 0; e < s.value_dim; ++e) {
        double mean = 0;
        for (std::int64_t j = 0; j < s.keys; ++j) mean += scores[j] * v[(kv * s.keys + j) * s.value_dim + e];
        merged.push_back(mean / sum);
      }
    }
    merged = Rounded(merged);
    for (std::size_t o = 0; o < bias.size(); ++o) {
      double sum = bias[o];
      for (std::size_t i = 0; i < merged.size(); ++i) sum += weight[o * merged.size() + i] * merged[i];
      output.push_back(sum);
    }
  }
  return Rounded(output);
}

TEST_P(FastLayers, AreAsExactAsStepsInBFloat16) {
  for (std::int64_t keys : {16, 300}) {
    LayerSpec spec = Base();
    spec.queries = spec.keys = keys;
    spec.embed = 256, spec.head_dim = spec.value_dim = 64;
    const FastLayer layer(spec);
    const AttendProblem problem = layer.Problem();
    const ReferenceResult expected = ReferenceAttend(problem);
    LayerResult actual(problem);
    Compute(problem, actual, Here());
    const double ours = RootMeanSquare(actual.output.Doubles(), expected.output);
    const double theirs = RootMeanSquare(StepsInBFloat16(layer, expected), expected.output);
    EXPECT_LE(ours, 1.5 * theirs) << keys << " keys";
    EXPECT_GT(theirs, 1e-4) << "nothing was rounded";
  }
}

TEST_P(FastLayers, SameBitsForAnyNumberOfThreads) {
  for (const LayerSpec& spec : Specs()) {
    const FastLayer layer(spec);
    const AttendProblem problem = layer.Problem();
    LayerResult alone(problem);
    Compute(problem, alone, Here());
    for (int threads : {1, 2, 3, 7}) {
      Executor executor({.num_threads = threads});
      LayerResult result(problem);
      Compute(problem, result, Here(), &executor);
      EXPECT_TRUE(result == alone) << threads << " threads, " << spec;
    }
  }
}

// A token's projections know nothing of the others. Without a rotary embedding, whose angles count from the last key.
TEST_P(FastLayers, SameBitsForAnyDivisionOfTheTokens) {
  LayerSpec spec = Base();
  spec.context = true, spec.keys = 70;
  const FastLayer layer(spec);
  LayerResult whole(layer.Problem());
  Compute(layer.Problem(), whole, Here());
  for (std::int64_t piece : {1, 2, 7, 33}) {
    for (std::int64_t first = 0; first < spec.queries; first += piece) {
      AttendProblem::Spec part = layer.spec;
      part.embeddings.length = std::min(piece, spec.queries - first);
      part.embeddings.data = static_cast<const std::byte*>(part.embeddings.data) + first * spec.embed * 2;
      const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(part);
      ASSERT_TRUE(problem.ok()) << problem.status();
      LayerResult actual(*problem);
      Compute(*problem, actual, Here());
      EXPECT_EQ(0, std::memcmp(actual.output.bytes.data(), whole.output.bytes.data() + first * 50 * 2,
                               actual.output.bytes.size()))
          << "tokens from " << first << ", " << piece << " at a time";
    }
  }
}

// The last rows, so many at a time, have the bits that they have among all. Memory is what the task says and no more.
void ExpectSameSums(FastKernels family, const TypedTensor& numbers, const TypedTensor& weights,
                    std::int64_t in_features, const std::vector<std::int64_t>& row_counts) {
  const testing::GuardedMemory x(numbers.bytes), weight(weights.bytes);
  const auto all_rows = static_cast<std::int64_t>(numbers.size()) / in_features;
  const auto features = static_cast<std::int64_t>(weights.size()) / in_features;
  const auto sums = [&](std::int64_t num_rows) {
    const auto size = static_cast<std::size_t>(num_rows * features);
    const testing::GuardedMemory y(size * sizeof(float));
    LinearTask task;
    task.x = x.data() + (all_rows - num_rows) * in_features * ElementSize(kBF16);
    task.num_rows = num_rows, task.x_stride = task.in_features = in_features;
    task.weight = weight.data(), task.weight_type = kBF16;
    task.out_features = task.y_stride = features;
    task.y = y.data();
    const LinearKernels& kernels = KernelsFor(family).linear;
    const auto floats = static_cast<std::size_t>(PadToCacheLine(kernels.scratch_size(task)));
    const testing::GuardedMemory scratch(floats * sizeof(float));
    kernels.linear(task, scratch.floats());
    return std::vector<float>(y.floats(), y.floats() + size);
  };
  const std::vector<float> all = sums(all_rows);
  for (std::int64_t rows : row_counts) {
    const std::vector<float> some = sums(rows);
    EXPECT_EQ(0, std::memcmp(some.data(), all.data() + all.size() - some.size(), some.size() * sizeof(float)))
        << rows << " rows of " << in_features;
  }
}

// Before they are rounded to BFLOAT16; also of products and sums around 2^-126, which count as 0 below it.
TEST_P(FastLayers, SumsHaveTheSameBitsForAnyNumberOfRows) {
  if (Here() == FastKernels::kNone) return;
  for (const float magnitude : {1.0f, 0x1p-63f, 0x1p-64f}) {
    SCOPED_TRACE(magnitude);
    for (std::int64_t in_features : {2, 6, 32, 46, 300}) {
      const auto tensor = [&](std::int64_t rows) {
        return TypedTensor::From(FastLayer::Random(rows * in_features, magnitude), kBF16);
      };
      ExpectSameSums(Here(), tensor(50), tensor(75), in_features, {1, 2, 3, 17, 49});
    }
  }
}

// The sum is -2^-127 and so -0 before the last features, whose products are too. What fills their block up makes +0.
TEST_P(FastLayers, SumsThatVanishHaveTheSameSignForAnyNumberOfRows) {
  if (Here() == FastKernels::kNone) return;
  constexpr std::int64_t kFeatures = 66;
  std::vector<float> x(3 * kFeatures);
  for (std::size_t row = 0; row < x.size(); row += kFeatures) {
    x[row] = 0x1p-63f, x[row + 32] = -0x1.8p-63f, x[row + 64] = x[row + 65] = -0x1p-64f;
  }
  const std::vector<float> weight(kFeatures, 0x1p-63f);
  ExpectSameSums(Here(), TypedTensor::From(x, kBF16), TypedTensor::From(weight, kBF16), kFeatures, {1, 2});
}

TEST_P(FastLayers, PackedWeightsHaveTheBitsOfUnpackedOnes) {
  for (const LayerSpec& spec : Specs()) {
    const FastLayer layer(spec);
    LayerResult expected(layer.Problem());
    Compute(layer.Problem(), expected, Here());
    AttendProblem::Spec named = layer.spec;
    LayerView& view = *named.layer;
    const InstructionSet set = BestInstructionSet();
    const PackedLinear query(view.query, set), key(view.key, set), value(view.value, set), output(view.output, set);
    view.query.packed = &query, view.key.packed = &key, view.value.packed = &value, view.output.packed = &output;
    for (LinearView* linear : {&view.query, &view.key, &view.value, &view.output}) {
      linear->weight = linear->bias = nullptr;
    }
    const absl::StatusOr<AttendProblem> packed = AttendProblem::Create(named);
    ASSERT_TRUE(packed.ok()) << packed.status();
    EXPECT_EQ(FastKernelsOf(*packed, Here()), Here());
    LayerResult actual(*packed);
    Compute(*packed, actual, Here());
    EXPECT_TRUE(actual == expected) << spec;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FastLayers, ::testing::ValuesIn(testing::FastFamiliesHere()), testing::NameOfFamily);

}  // namespace
}  // namespace attend
