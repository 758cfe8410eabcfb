// Norms and rotary embedding of queries and keys: against the float64 reference, and the same bits however they are
// computed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/reference/reference.h"
#include "core/runtime/executor.h"
#include "tests/support/layer_case.h"

namespace attend {
namespace {

using testing::LayerCase;
using testing::LayerResult;
using testing::LayerSpec;
using testing::NormOver;
using testing::TypedTensor;

constexpr auto kF16 = DataType::kFloat16, kBF16 = DataType::kBFloat16, kF32 = DataType::kFloat32,
               kF64 = DataType::kFloat64;

void Compute(const AttendProblem& problem, InstructionSet set, Executor* executor, LayerResult& result) {
  ComputeContext context;
  context.instruction_set = set;
  context.executor = executor;
  ASSERT_TRUE(ComputeAttend(problem, result.outputs, context).ok());
}

// A relative bound of one unit in the last place.
double UnitOf(DataType type) { return type == kBF16 ? 0x1p-7 : type == kF16 ? 0x1p-10 : 0; }

double Largest(const std::vector<double>& numbers) {
  double largest = 0;
  for (double x : numbers) largest = std::max(largest, std::abs(x));
  return largest;
}

// Within `tolerance`, and one unit in the last place of a 16-bit type.
::testing::AssertionResult Near(const TypedTensor& actual, const std::vector<double>& expected, double tolerance) {
  const std::vector<double> numbers = actual.Doubles();
  if (numbers.size() != expected.size()) return ::testing::AssertionFailure() << "of another size";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    // The smallest subnormal FLOAT16 is 2^-24.
    const double allowed =
        tolerance + UnitOf(actual.type) * std::abs(expected[i]) + (actual.type == kF16 ? 0x1p-24 : 0);
    if (std::abs(numbers[i] - expected[i]) <= allowed) continue;
    return ::testing::AssertionFailure() << "element " << i << " is " << numbers[i] << ", expected " << expected[i]
                                         << ", allowed " << allowed;
  }
  return ::testing::AssertionSuccess();
}

// Projected numbers are below 2 in magnitude and, as chains of at most 130 products, off by less than 1e-6 (measured:
// 2e-7). A norm divides by sqrt(variance + 0.01) >= 0.1 and multiplies by less than 1.5: at most 15 times that, where a
// head hardly varies. Being turned adds three roundings of its own, 2e-7 of numbers up to 6: 1.6e-5 in all. Outputs
// are held to what is promised of attention.
void ExpectAgreement(const LayerSpec& spec) {
  SCOPED_TRACE(spec);
  const LayerCase layer_case(spec);
  const AttendProblem problem = layer_case.Problem();
  const ReferenceResult expected = ReferenceAttend(problem);
  const bool is_double = spec.type == kF64;
  const double finished = is_double ? 1e-12 : 1.6e-5;
  const double attended = is_double ? 1e-12 : 2e-6 * Largest(expected.value) + 1e-6;
  for (InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(InstructionSetName(set));
    LayerResult actual(problem);
    Compute(problem, set, nullptr, actual);
    EXPECT_TRUE(Near(actual.query, expected.query, finished)) << "query";
    EXPECT_TRUE(Near(actual.key, expected.key, finished)) << "key";
    EXPECT_TRUE(Near(actual.value, expected.value, is_double ? 1e-12 : 1e-6)) << "value";
    EXPECT_TRUE(Near(actual.output, expected.output, attended)) << "output";
  }
}

// Every norm, over heads whose size lies around the eight partial sums.
TEST(LayerParts, NormsAgreeWithTheReference) {
  for (std::int64_t head_dim : {1, 2, 7, 8, 9, 16, 17, 33, 64}) {
    for (NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      for (int variant = 0; variant < 4; ++variant) {
        LayerSpec spec;
        spec.embed = 20 + head_dim;
        spec.heads = 6, spec.kv_heads = 3, spec.head_dim = head_dim, spec.value_dim = 5;
        spec.query_norm = variant % 2 == 0 ? NormOver::kHead : NormOver::kToken;
        spec.key_norm = variant < 2 ? NormOver::kHead : NormOver::kToken;
        spec.kind = kind;
        spec.adds_one = variant == 1 || variant == 2;
        spec.norm_bias = variant >= 2;
        ExpectAgreement(spec);
      }
    }
  }
}

// The queries of a layer with norms whose embeddings are multiplied by `unit`.
std::vector<double> NormedQueries(NormKind kind, double epsilon, double unit) {
  LayerSpec spec;
  spec.type = spec.weight_type = kF64;
  spec.heads = spec.kv_heads = 2;
  spec.query_norm = NormOver::kHead, spec.key_norm = NormOver::kToken;
  spec.kind = kind;
  LayerCase layer_case(spec);
  auto* numbers = reinterpret_cast<double*>(layer_case.embeddings.bytes.data());
  for (std::int64_t i = 0; i < spec.batch * spec.queries * spec.embed; ++i) numbers[i] *= unit;
  layer_case.layer.query_norm.epsilon = layer_case.layer.key_norm.epsilon = epsilon;
  const AttendProblem problem = layer_case.Problem();
  LayerResult actual(problem);
  Compute(problem, BestInstructionSet(), nullptr, actual);
  return actual.query.Doubles();
}

// Squares of such numbers are beyond the range of FLOAT64. Without an epsilon a norm does not depend on the unit of its
// row; with one it does not where the row is large, and a tiny row is divided by the root of epsilon.
TEST(LayerParts, NormsOfDoublesOfAnySize) {
  for (NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    const std::vector<double> ordinary = NormedQueries(kind, 0, 1);
    ASSERT_GT(Largest(ordinary), 0.1);
    for (double unit : {0x1p1000, 0x1p500, 0x1p-500, 0x1p-1000}) {
      SCOPED_TRACE(unit);
      EXPECT_TRUE(testing::AllNear(NormedQueries(kind, 0, unit), ordinary, 1e-14));
    }
    EXPECT_TRUE(testing::AllNear(NormedQueries(kind, 0.25, 0x1p1000), ordinary, 1e-14));
    std::vector<double> tiny = NormedQueries(kind, 0.25, 0x1p-900);
    const std::vector<double> less_tiny = NormedQueries(kind, 0.25, 0x1p-300);
    for (double& x : tiny) x *= 0x1p600;
    EXPECT_TRUE(testing::AllNear(tiny, less_tiny, 1e-14 * Largest(less_tiny)));
  }
}

TEST(LayerParts, EitherNormAlone) {
  LayerSpec spec;
  spec.heads = spec.kv_heads = 2;
  spec.query_norm = NormOver::kHead;
  ExpectAgreement(spec);
  std::swap(spec.query_norm, spec.key_norm);
  ExpectAgreement(spec);
}

// Whole and partial heads of even and odd size.
TEST(LayerParts, RotaryAgreesWithTheReference) {
  for (std::int64_t head_dim : {2, 3, 8, 17, 40, 130}) {
    for (std::int64_t rotary_dim : {std::int64_t{2}, head_dim / 2 / 2 * 2, head_dim / 2 * 2}) {
      if (rotary_dim == 0) continue;
      for (bool interleaved : {false, true}) {
        LayerSpec spec;
        spec.batch = 2, spec.queries = spec.keys = 19;
        spec.heads = 4, spec.kv_heads = 2, spec.head_dim = head_dim;
        spec.rotary_dim = rotary_dim;
        spec.interleaved = interleaved;
        spec.position_offset = 1000;
        spec.causal = CausalMode::kBottomRight;
        ExpectAgreement(spec);
      }
    }
  }
}

// A factor on what is turned, and norms on both sides of the rotation: three results that differ.
TEST(LayerParts, RotaryFactorAndOrderOfNormsAgreeWithTheReference) {
  for (bool interleaved : {false, true}) {
    for (bool after : {false, true}) {
      for (DataType type : {kF32, kF64}) {
        LayerSpec spec;
        spec.type = spec.weight_type = type;
        spec.queries = spec.keys = 19;
        spec.heads = 4, spec.kv_heads = 2, spec.head_dim = 16, spec.rotary_dim = 8;
        spec.interleaved = interleaved;
        spec.rotary_factor = 1.25;
        spec.query_norm = spec.key_norm = NormOver::kHead;
        spec.norms_after_rotary = after;
        ExpectAgreement(spec);
        LayerSpec other = spec;
        other.norms_after_rotary = !after;
        EXPECT_NE(ReferenceAttend(LayerCase(spec).Problem()).query, ReferenceAttend(LayerCase(other).Problem()).query);
      }
    }
  }
}

// A layer with everything, in all ways of saying where tokens stand.
std::vector<LayerSpec> Everywhere() {
  LayerSpec all;
  all.queries = all.keys = 37, all.embed = 50;
  all.heads = 6, all.kv_heads = 2, all.head_dim = 18;
  all.query_norm = NormOver::kHead, all.key_norm = NormOver::kToken;
  all.rotary_dim = 12;
  LayerSpec lengths = all;
  lengths.batch = 3, lengths.valid_lengths = {37, 5, 0}, lengths.causal = CausalMode::kBottomRight;
  LayerSpec cross = all;
  cross.context = true, cross.keys = 90, cross.batch = 2, cross.interleaved = true;
  LayerSpec shorter = cross;
  shorter.keys = 20, shorter.causal = CausalMode::kBottomRight;
  LayerSpec cross_lengths = cross;
  cross_lengths.valid_lengths = {77, 3}, cross_lengths.query_lengths = {30, 37};
  LayerSpec top_left = cross;
  top_left.causal = CausalMode::kTopLeft, top_left.position_offset = 70;
  LayerSpec ragged = all;
  ragged.query_offsets = {0, 1, 1, 20, 37}, ragged.causal = CausalMode::kBottomRight, ragged.position_offset = 5;
  LayerSpec ragged_cross = cross;
  ragged_cross.batch = 1, ragged_cross.query_offsets = {0, 0, 9, 10, 37},
  ragged_cross.key_offsets = {0, 30, 35, 35, 90};
  LayerSpec ragged_top_left = ragged_cross;
  ragged_top_left.causal = CausalMode::kTopLeft;
  LayerSpec offsets = all;
  offsets.batch = 3, offsets.position_offsets = {0, 1000, 77};
  LayerSpec cross_offsets = cross;
  cross_offsets.position_offsets = {5, 600}, cross_offsets.valid_lengths = {90, 33};
  LayerSpec ragged_offsets = ragged_cross;
  ragged_offsets.position_offsets = {1, 20, 300, 4000};
  LayerSpec one = all;
  one.queries = one.keys = 1, one.position_offset = 4321;
  LayerSpec token = cross;
  token.queries = 1, token.keys = 300;
  return {all,          lengths,         cross,   shorter,       cross_lengths,  top_left, ragged,
          ragged_cross, ragged_top_left, offsets, cross_offsets, ragged_offsets, one,      token};
}

TEST(LayerParts, TokensStandWhereTheOptionsSay) {
  for (const LayerSpec& spec : Everywhere()) ExpectAgreement(spec);
}

TEST(LayerParts, EveryTypeAgreesWithTheReference) {
  constexpr DataType kTypes[][2] = {{kF16, kF16}, {kBF16, kBF16}, {kF32, kBF16}, {kF16, kF32}, {kF64, kF64}};
  for (const auto& types : kTypes) {
    for (LayerSpec spec : Everywhere()) {
      spec.type = types[0], spec.weight_type = types[1];
      ExpectAgreement(spec);
    }
  }
}

TEST(LayerParts, SameBitsForAnyThreadsAndInstructionSet) {
  for (DataType type : {kF32, kBF16, kF64}) {
    for (LayerSpec spec : Everywhere()) {
      SCOPED_TRACE(spec);
      spec.type = type, spec.weight_type = type;
      spec.queries *= 4, spec.keys *= 4;  // Enough work to be spread.
      for (auto* list : {&spec.query_offsets, &spec.key_offsets, &spec.valid_lengths, &spec.query_lengths}) {
        for (std::int64_t& n : *list) n *= 4;
      }
      const LayerCase layer_case(spec);
      const AttendProblem problem = layer_case.Problem();
      LayerResult first(problem);
      Compute(problem, BestInstructionSet(), nullptr, first);
      for (InstructionSet set : SupportedInstructionSets()) {
        if (IsBitReproducible(set) != IsBitReproducible(BestInstructionSet())) continue;
        for (int threads : {1, 2, 3, 4}) {
          Executor executor({.num_threads = threads});
          LayerResult other(problem);
          Compute(problem, set, &executor, other);
          EXPECT_TRUE(first == other) << InstructionSetName(set) << " with " << threads << " threads";
        }
      }
    }
  }
}

// The rows [begin, end) of each of `heads` heads of `length` rows.
std::vector<std::byte> HeadRows(const TypedTensor& tensor, std::int64_t heads, std::int64_t length, std::int64_t begin,
                                std::int64_t end) {
  std::vector<std::byte> rows;
  const auto row_bytes = static_cast<std::int64_t>(tensor.bytes.size()) / heads / length;
  for (std::int64_t h = 0; h < heads; ++h) {
    const auto* head = tensor.bytes.data() + h * length * row_bytes;
    rows.insert(rows.end(), head + begin * row_bytes, head + end * row_bytes);
  }
  return rows;
}

LayerSpec Prefill() {
  LayerSpec spec = Everywhere()[0];
  spec.queries = spec.keys = 100;
  spec.causal = CausalMode::kBottomRight;
  spec.position_offset = 11;
  return spec;
}

TEST(LayerParts, AnyPlaceInABatchGivesTheSameBits) {
  LayerSpec spec = Prefill();
  spec.batch = 3;
  const LayerCase batch(spec);
  LayerResult whole(batch.Problem());
  Compute(batch.Problem(), BestInstructionSet(), nullptr, whole);
  for (std::int64_t b = 0; b < 3; ++b) {
    AttendProblem::Spec one = batch.ProblemSpec();
    one.embeddings.batch = 1;
    one.embeddings.data = batch.embeddings.bytes.data() + b * spec.queries * spec.embed * 4;
    const AttendProblem problem = *AttendProblem::Create(one);
    LayerResult alone(problem);
    Compute(problem, BestInstructionSet(), nullptr, alone);
    // Of [3, T, D_out], a batch entry is a row.
    EXPECT_EQ(alone.output.bytes, HeadRows(whole.output, 1, 3, b, b + 1));
  }
}

// As in batched decoding: each entry at its own position has the bits that it has alone, and equal ones those of one
// position_offset for all.
TEST(LayerParts, PositionOffsetsAreThoseOfEachBatchEntryAlone) {
  for (bool context : {false, true}) {
    LayerSpec spec = Prefill();
    spec.batch = 3, spec.context = context, spec.queries = context ? 1 : 100;
    spec.position_offset = 0, spec.position_offsets = {7, kMaxPositionOffset, 0};
    if (context) spec.valid_lengths = {100, 31, 64};
    const LayerCase batch(spec);
    LayerResult whole(batch.Problem());
    Compute(batch.Problem(), BestInstructionSet(), nullptr, whole);
    for (std::int64_t b = 0; b < 3; ++b) {
      AttendProblem::Spec one = batch.ProblemSpec();
      one.embeddings.batch = 1;
      one.embeddings.data = batch.embeddings.bytes.data() + b * spec.queries * spec.embed * 4;
      if (context)
        one.context.batch = 1, one.context.data = batch.context.bytes.data() + b * spec.keys * spec.embed * 4;
      if (context) one.options.valid_lengths = absl::MakeConstSpan(spec.valid_lengths).subspan(b, 1);
      one.position_offset = spec.position_offsets[static_cast<std::size_t>(b)], one.position_offsets = {};
      const AttendProblem problem = *AttendProblem::Create(one);
      LayerResult alone(problem);
      Compute(problem, BestInstructionSet(), nullptr, alone);
      EXPECT_EQ(alone.output.bytes, HeadRows(whole.output, 1, 3, b, b + 1)) << b;
      EXPECT_EQ(alone.query.bytes, HeadRows(whole.query, 1, 3, b, b + 1)) << b;
      EXPECT_EQ(alone.key.bytes, HeadRows(whole.key, 1, 3, b, b + 1)) << b;
    }
    EXPECT_NE(HeadRows(whole.key, 1, 3, 0, 1), HeadRows(whole.key, 1, 3, 1, 2));
    AttendProblem::Spec equal = batch.ProblemSpec(), single = equal;
    const std::vector<std::int64_t> same(3, 12345);
    equal.position_offsets = same;
    single.position_offsets = {}, single.position_offset = 12345;
    const AttendProblem many = *AttendProblem::Create(equal), one = *AttendProblem::Create(single);
    LayerResult of_many(many), of_one(one);
    Compute(many, BestInstructionSet(), nullptr, of_many);
    Compute(one, BestInstructionSet(), nullptr, of_one);
    EXPECT_TRUE(of_many == of_one);
    EXPECT_EQ(many.Flops(), one.Flops());
    EXPECT_EQ(ScratchBytes(many, 2, false), ScratchBytes(one, 2, false));
  }
}

// Without a rotary embedding nothing depends on positions but the options, which position offsets do not move.
TEST(LayerParts, PositionOffsetsAreIgnoredWithoutRotaryEmbedding) {
  LayerSpec spec = Prefill();
  spec.batch = 2, spec.rotary_dim = 0, spec.position_offset = 0;
  const LayerCase without(spec);
  spec.position_offsets = {3, 4};
  const LayerCase with(spec);
  LayerResult expected(without.Problem()), actual(with.Problem());
  Compute(without.Problem(), BestInstructionSet(), nullptr, expected);
  Compute(with.Problem(), BestInstructionSet(), nullptr, actual);
  EXPECT_TRUE(actual == expected);
}

// A text given piece by piece: each piece's queries and keys, at its position_offset, have the bits of the whole, and
// so has what they attend to when the earlier tokens are its context.
TEST(LayerParts, PiecesOfATextGiveTheBitsOfTheWhole) {
  const LayerSpec spec = Prefill();
  const LayerCase text(spec);
  const AttendProblem whole_problem = text.Problem();
  LayerResult whole(whole_problem);
  Compute(whole_problem, BestInstructionSet(), nullptr, whole);
  constexpr std::int64_t kCuts[] = {0, 1, 40, 73, 100};
  for (int i = 0; i + 1 < 5; ++i) {
    const std::int64_t begin = kCuts[i], end = kCuts[i + 1];
    AttendProblem::Spec piece = text.ProblemSpec();
    piece.embeddings.data = text.embeddings.bytes.data() + begin * spec.embed * 4;
    piece.embeddings.length = end - begin;
    piece.position_offset += begin;
    const AttendProblem alone = *AttendProblem::Create(piece);
    LayerResult parts(alone);
    Compute(alone, BestInstructionSet(), nullptr, parts);
    EXPECT_EQ(parts.query.bytes, HeadRows(whole.query, spec.heads, 100, begin, end)) << begin;
    EXPECT_EQ(parts.key.bytes, HeadRows(whole.key, spec.kv_heads, 100, begin, end)) << begin;
    piece.position_offset = spec.position_offset;
    piece.context = {text.embeddings.bytes.data(), 1, end, spec.embed};
    const AttendProblem after = *AttendProblem::Create(piece);
    LayerResult attended(after);
    Compute(after, BestInstructionSet(), nullptr, attended);
    EXPECT_EQ(attended.output.bytes, HeadRows(whole.output, 1, 100, begin, end)) << begin;
  }
}

// Scores depend on distances alone: far from the start of a text nothing else changes, in FLOAT64 to its last digits.
TEST(LayerParts, OnlyDistancesMatter) {
  LayerSpec spec = Prefill();
  spec.type = spec.weight_type = kF64;
  std::vector<std::vector<double>> outputs;
  for (std::int64_t offset : {std::int64_t{0}, std::int64_t{1} << 20, kMaxPositionOffset}) {
    spec.position_offset = offset;
    const LayerCase layer_case(spec);
    const AttendProblem problem = layer_case.Problem();
    LayerResult result(problem);
    Compute(problem, BestInstructionSet(), nullptr, result);
    outputs.push_back(result.output.Doubles());
  }
  EXPECT_TRUE(testing::AllNear(outputs[1], outputs[0], 1e-13));
  EXPECT_TRUE(testing::AllNear(outputs[2], outputs[0], 1e-13));
}

TEST(LayerParts, NanStaysInItsRow) {
  LayerSpec spec = Prefill();
  const LayerCase layer_case(spec);
  const float nan = std::nanf("");
  std::vector<std::byte> poisoned = layer_case.embeddings.bytes;
  std::memcpy(poisoned.data() + 50 * spec.embed * 4, &nan, 4);
  AttendProblem::Spec problem_spec = layer_case.ProblemSpec();
  problem_spec.embeddings.data = poisoned.data();
  const AttendProblem problem = *AttendProblem::Create(problem_spec);
  LayerResult clean(problem), actual(problem);
  Compute(layer_case.Problem(), BestInstructionSet(), nullptr, clean);
  Compute(problem, BestInstructionSet(), nullptr, actual);
  EXPECT_TRUE(std::isnan(actual.key.Doubles()[static_cast<std::size_t>(50 * spec.head_dim)]));
  EXPECT_EQ(HeadRows(actual.key, spec.kv_heads, 100, 0, 50), HeadRows(clean.key, spec.kv_heads, 100, 0, 50));
  EXPECT_EQ(HeadRows(actual.output, 1, 100, 0, 50), HeadRows(clean.output, 1, 100, 0, 50));
}

}  // namespace
}  // namespace attend
