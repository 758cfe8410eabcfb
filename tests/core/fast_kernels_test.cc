// PRECISION_FAST: which kernels a processor uses, how exact they are, and that they have bits of their own that depend
// on nothing but the problem. Where the processor lacks the instructions, that FAST is EXACT is all there is to test.
#include "core/kernels/fast_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "core/layer/compute_attend.h"
#include "core/runtime/executor.h"
#include "tests/support/fast_families.h"
#include "tests/support/guarded_memory.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::Ask;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;
using testing::TypedTensor;

constexpr auto kBF16 = DataType::kBFloat16;

class FastKernelsTest : public testing::ForEachFastFamily {};

// An SdpaCase in BFLOAT16 that asks for PRECISION_FAST.
struct FastCase {
  explicit FastCase(const SdpaCaseSpec& s, DataType type = kBF16)
      : spec(s),
        base(s),
        query(TypedTensor::From(base.query, type)),
        key(TypedTensor::From(base.key, type)),
        value(TypedTensor::From(base.value, type)) {
    base.options.precision = Precision::kFast;
  }

  SdpaProblem::Spec ProblemSpec() const {
    return {query.View(spec.batch, spec.heads, spec.queries, spec.head_dim),
            key.View(spec.batch, spec.kv_heads, spec.keys, spec.head_dim),
            value.View(spec.batch, spec.kv_heads, spec.keys, spec.value_dim), base.options};
  }
  SdpaProblem Problem() const {
    absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(ProblemSpec());
    EXPECT_TRUE(problem.ok()) << problem.status() << " for " << spec;
    return *std::move(problem);
  }

  SdpaCaseSpec spec;
  SdpaCase base;
  TypedTensor query, key, value;
};

// Results in FLOAT32, so that rounding outputs to BFLOAT16 hides no difference.
SdpaResult Compute(const SdpaProblem& problem, FastKernels fast, Executor* executor = nullptr,
                   Ask ask = Ask::kEverything) {
  SdpaResult result(problem, ask);
  EXPECT_TRUE(ComputeSdpa(problem, result.Outputs(), {.executor = executor, .fast_kernels = fast}).ok());
  return result;
}

double Largest(const std::vector<double>& numbers) {
  double largest = 0;
  for (double x : numbers) largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
  return largest;
}

SdpaCaseSpec WithOptions(SdpaCaseSpec spec, unsigned choice) {
  if (choice & 1) spec.causal = CausalMode::kBottomRight;
  if (choice & 2) spec.window_left = spec.keys / 3;
  if (choice & 4) spec.mask = true;
  if (choice & 8) spec.bias = true;
  if (choice & 16) spec.alibi = true;
  if (choice & 32) spec.sinks = true;
  if (choice & 64) spec.softcap = 3.0f;
  if (choice & 128) spec.key_mask = true;
  return spec;
}

// The promise is 2^-7 of the largest value, with the output rounded to BFLOAT16. Before that rounding, weights that are
// off by at most 2^-8 of themselves move the output by at most 2^-8 of the largest value; scores have float32's error.
void ExpectAccurate(const FastCase& fast, FastKernels family) {
  SCOPED_TRACE(::testing::PrintToString(fast.spec));
  const SdpaProblem problem = fast.Problem();
  const ReferenceResult expected = ReferenceSdpa(problem);
  const SdpaResult actual = Compute(problem, family);
  const double largest_value = Largest(fast.value.Doubles());
  const double score_error = 0x1p-23 * Largest(expected.scores);
  EXPECT_TRUE(AllNear(actual.output, expected.output, (0x1p-8 + score_error) * largest_value + 3e-6));
  EXPECT_TRUE(AllNear(actual.weights, expected.attention_weights, 2e-6 + 2 * score_error));
  EXPECT_TRUE(AllNear(actual.averaged, expected.averaged_weights, 2e-6 + 2 * score_error));
  // An outlier early in the chain makes all later sums as large as the score.
  EXPECT_TRUE(AllNear(actual.scores, expected.scores, 1e-5 + 8 * score_error));
  EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 1e-5 + 3 * score_error));
}

// Each product is below float32's smallest number, and the scale makes 1.28 of their sum, which a large softcap leaves.
TEST_P(FastKernelsTest, AHugeScaleBringsTinyProductsBack) {
  for (std::int64_t queries : {1, 20}) {
    for (const std::optional<float> softcap : {std::optional<float>(), std::optional<float>(1e18f)}) {
      SdpaCaseSpec spec;
      spec.queries = queries, spec.keys = 3, spec.head_dim = 64;
      spec.scale = 2e38f, spec.softcap = softcap;
      FastCase fast(spec);
      std::fill(fast.base.query.begin(), fast.base.query.end(), 1e-20f);
      for (std::size_t i = 0; i < fast.base.key.size(); ++i) fast.base.key[i] = i < 64 ? 1e-20f : -1e-20f;
      fast.query = TypedTensor::From(fast.base.query, kBF16);
      fast.key = TypedTensor::From(fast.base.key, kBF16);
      const SdpaProblem problem = fast.Problem();
      const ReferenceResult expected = ReferenceSdpa(problem);
      ASSERT_GT(expected.scores[0], 1.2);
      const SdpaResult actual = Compute(problem, Here());
      EXPECT_TRUE(AllNear(actual.weights, expected.attention_weights, 1e-5)) << "softcap " << softcap.has_value();
      EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 1e-5)) << "softcap " << softcap.has_value();
    }
  }
}

TEST(ChooseFastKernels, ATableOfProcessorsAndTheModeDecide) {
  const Processor genoa{"AuthenticAMD", 25, 0x11, true}, turin{"AuthenticAMD", 26, 0x02, true};
  const Processor milan{"AuthenticAMD", 25, 0x01, false}, cooper_lake{"GenuineIntel", 6, 0x55, true};
  const Processor unknown{"AuthenticAMD", 27, 0x00, true}, masked{"AuthenticAMD", 25, 0x11, false};
  const Processor measured{"GenuineIntel", 6, 0xa7, true, true}, emerald{"GenuineIntel", 6, 0xcf, true, true};
  const Processor without_tiles{"GenuineIntel", 6, 0xa7, true, false},
      tiles_alone{"GenuineIntel", 6, 0xa7, false, true};
  constexpr auto kNone = FastKernels::kNone;
  const bool compiled = FastQueryLaneKernels() != nullptr;
  const FastKernels bf16 = compiled ? FastKernels::kAvx512Bf16 : kNone;
  const FastKernels amx = compiled ? FastKernels::kAvx512Amx : kNone;
  const struct {
    Processor processor;
    FastKernels automatic, on;
  } cases[] = {{genoa, bf16, bf16},        {turin, bf16, bf16},    {milan, kNone, kNone},
               {cooper_lake, kNone, bf16}, {unknown, kNone, bf16}, {masked, kNone, kNone},
               {measured, amx, amx},       {emerald, kNone, amx},  {without_tiles, kNone, bf16},
               {tiles_alone, kNone, kNone}};
  for (const auto& [processor, automatic, on] : cases) {
    SCOPED_TRACE(::testing::Message() << processor.vendor << " " << processor.family << " " << processor.model);
    const auto choose = [&](FastKernelsMode mode) {
      return ChooseFastKernels(mode, InstructionSet::kAvx512, processor);
    };
    EXPECT_EQ(choose(FastKernelsMode::kAuto), automatic);
    EXPECT_EQ(choose(FastKernelsMode::kOn), on);
    EXPECT_EQ(choose(FastKernelsMode::kOff), kNone);
    EXPECT_EQ(ChooseFastKernels(FastKernelsMode::kOn, InstructionSet::kAvx2, processor), kNone);
  }
}

TEST(ChooseFastKernels, ReceiptsNameTheFamily) {
  EXPECT_EQ(KernelName(InstructionSet::kAvx512, FastKernels::kNone), "avx512");
  EXPECT_EQ(KernelName(InstructionSet::kAvx512, FastKernels::kAvx512Bf16), "avx512-bf16-fast");
  EXPECT_EQ(KernelName(InstructionSet::kAvx512, FastKernels::kAvx512Amx), "avx512-amx-fast");
}

TEST(ChooseFastKernels, OnIsTheFirstOfTheSupported) {
  for (InstructionSet set : SupportedInstructionSets()) {
    const std::vector<FastKernels> families = SupportedFastKernels(set);
    const FastKernels on = ChooseFastKernels(FastKernelsMode::kOn, set);
    EXPECT_EQ(on, families.empty() ? FastKernels::kNone : families.front());
  }
}

TEST_P(FastKernelsTest, OtherTypesAndExactProblemsAndMissingInstructionsComputeExactly) {
  SdpaCaseSpec spec;
  spec.heads = 2, spec.queries = 20, spec.keys = 100;
  for (DataType type : {DataType::kFloat32, DataType::kFloat16, DataType::kFloat64, kBF16}) {
    FastCase fast(spec, type);
    const SdpaProblem problem = fast.Problem();
    const FastKernels family = type == kBF16 ? FastKernels::kNone : Here();
    fast.base.options.precision = Precision::kExact;
    const SdpaProblem exact = fast.Problem();
    EXPECT_EQ(FastKernelsOf(problem, family), FastKernels::kNone);
    EXPECT_EQ(FastKernelsOf(exact, Here()), FastKernels::kNone);
    if (type == DataType::kFloat64) continue;
    EXPECT_TRUE(SameBits(Compute(problem, family), Compute(exact, Here())));
  }
}

// Not only accurate: other bits than EXACT, so that the tests below test something; the same bits where the processor
// does not multiply BFLOAT16 numbers.
TEST_P(FastKernelsTest, FastKernelsComputeWhereTheInstructionsAre) {
  SdpaCaseSpec spec;
  spec.keys = 100;
  for (std::int64_t queries : {1, 20}) {
    spec.queries = queries;
    const FastCase fast(spec);
    EXPECT_EQ(FastKernelsOf(fast.Problem(), Here()), Here());
    const bool same =
        static_cast<bool>(SameBits(Compute(fast.Problem(), Here()), Compute(fast.Problem(), FastKernels::kNone)));
    EXPECT_EQ(same, Here() == FastKernels::kNone);
  }
}

TEST_P(FastKernelsTest, LengthsAndSizesAroundTheTiles) {
  constexpr std::int64_t kQueries[] = {1, 2, 3, 5, 8, 9, 16, 17, 48, 49, 130};
  constexpr std::int64_t kKeys[] = {1, 2, 15, 31, 63, 64, 65, 128, 129, 256, 257, 1025};
  constexpr std::int64_t kHeadDims[] = {2, 6, 16, 24, 64, 128, 130, 514};
  constexpr std::int64_t kValueDims[] = {1, 3, 16, 31, 32, 33, 64, 80, 128};
  unsigned i = 0;
  for (std::int64_t queries : kQueries) {
    for (std::int64_t keys : kKeys) {
      SdpaCaseSpec spec;
      spec.queries = queries, spec.keys = keys;
      spec.head_dim = kHeadDims[i % std::size(kHeadDims)];
      spec.value_dim = kValueDims[i % std::size(kValueDims)];
      spec.magnitude = spec.head_dim > 100 ? 0.5f : 1.7f;
      spec.seed = ++i;
      ExpectAccurate(FastCase(spec), Here());
    }
  }
}

TEST_P(FastKernelsTest, EveryCombinationOfOptions) {
  for (unsigned choice = 0; choice < 256; ++choice) {
    SdpaCaseSpec spec;
    spec.batch = 2, spec.heads = 4, spec.kv_heads = choice % 2 == 0 ? 2 : 4;
    spec.queries = 1 + choice * 7 % 37, spec.keys = 60 + choice * 11 % 71;
    spec.head_dim = 16, spec.value_dim = choice % 3 == 0 ? 32 : 18;
    spec.broadcast = choice % 5 == 0;
    spec.seed = choice;
    if (choice % 4 == 1) spec.valid_lengths = {spec.keys / 2, spec.keys};
    ExpectAccurate(FastCase(WithOptions(spec, choice)), Here());
  }
}

// A few dimensions of keys and queries, and a few values, a hundred times the others; scores of 30 and more.
TEST_P(FastKernelsTest, OutlierChannelsAndLargeScores) {
  for (std::int64_t queries : {1, 4, 60}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 700, spec.head_dim = 64, spec.value_dim = 64;
    FastCase fast(spec);
    for (std::size_t i = 0; i < fast.base.query.size(); i += 64) fast.base.query[i + 3] *= 10;
    for (std::size_t i = 0; i < fast.base.key.size(); i += 64) fast.base.key[i + 3] *= 10;
    for (std::size_t i = 5; i < fast.base.value.size(); i += 64) fast.base.value[i] *= 100;
    fast.query = TypedTensor::From(fast.base.query, kBF16);
    fast.key = TypedTensor::From(fast.base.key, kBF16);
    fast.value = TypedTensor::From(fast.base.value, kBF16);
    ExpectAccurate(fast, Here());
  }
}

// Rounding weights moves no mean of equal values.
TEST_P(FastKernelsTest, EqualValuesGiveThatValue) {
  for (std::int64_t queries : {1, 4, 60}) {
    SdpaCaseSpec spec;
    spec.heads = 2, spec.queries = queries, spec.keys = 1500, spec.value_dim = 33;
    FastCase fast(spec);
    fast.value = TypedTensor::From(std::vector<float>(fast.base.value.size(), 3.0f), kBF16);
    const SdpaResult actual = Compute(fast.Problem(), Here(), nullptr, Ask::kOutput);
    EXPECT_TRUE(AllNear(actual.output, std::vector<double>(actual.output.size(), 3.0), 3e-6));
  }
}

std::vector<SdpaCaseSpec> BitSpecs() {
  SdpaCaseSpec few;
  few.queries = 3, few.keys = 3300, few.heads = 2, few.kv_heads = 1, few.head_dim = 64, few.value_dim = 40;
  few.magnitude = 4;  // The maximum moves often.
  SdpaCaseSpec many = few;
  many.queries = 60, many.keys = 1201, many.head_dim = 20;
  many.causal = CausalMode::kBottomRight;
  SdpaCaseSpec rich = many;
  rich.batch = 2, rich.heads = 6, rich.kv_heads = 2, rich.queries = 61, rich.value_dim = 64;
  rich.window_left = 700, rich.softcap = 5.0f;
  rich.mask = rich.bias = rich.alibi = rich.sinks = true;
  rich.valid_lengths = {1111, 1201};
  return {few, many, rich};
}

TEST_P(FastKernelsTest, SameBitsForAnyNumberOfThreads) {
  for (const SdpaCaseSpec& spec : BitSpecs()) {
    const FastCase fast(spec);
    const SdpaProblem problem = fast.Problem();
    for (Ask ask : {Ask::kOutput, Ask::kPerHead, Ask::kEverything}) {
      const SdpaResult alone = Compute(problem, Here(), nullptr, ask);
      EXPECT_TRUE(SameBits(alone.output, Compute(problem, Here()).output));
      for (int threads : {1, 2, 3, 7}) {
        Executor executor({.num_threads = threads});
        EXPECT_TRUE(SameBits(alone, Compute(problem, Here(), &executor, ask))) << threads << " threads, " << spec;
      }
    }
  }
}

TEST_P(FastKernelsTest, SameBitsInAnyBatch) {
  const FastCase fast(BitSpecs()[2]);
  const SdpaResult whole = Compute(fast.Problem(), Here(), nullptr, Ask::kOutput);
  SdpaProblem::Spec spec = fast.ProblemSpec();
  for (TypedHeadsView* view : {&spec.query, &spec.key, &spec.value}) {
    view->data = view->Row(1, 0, 0), view->batch = 1;
  }
  spec.options.valid_lengths = spec.options.valid_lengths.subspan(1);
  for (auto* view : {&spec.options.mask}) view->data = view->Row(1, 0, 0), view->batch = 1;
  spec.options.bias.data = spec.options.bias.Row(1, 0, 0), spec.options.bias.batch = 1;
  const absl::StatusOr<SdpaProblem> one = SdpaProblem::Create(spec);
  ASSERT_TRUE(one.ok()) << one.status();
  const SdpaResult alone = Compute(*one, Here(), nullptr, Ask::kOutput);
  EXPECT_EQ(0, std::memcmp(alone.output.data(), whole.output.data() + alone.output.size(),
                           alone.output.size() * sizeof(float)));
}

// Prefill in chunks, and decoding one by one, as in kernels_bits_test.cc.
TEST_P(FastKernelsTest, SameBitsForChunkedPrefillAndDecoding) {
  for (std::int64_t head_dim : {24, 64, 130}) {
    for (std::int64_t piece : {1, 2, 3, 5, 13, 64}) {
      SdpaCaseSpec spec;
      spec.heads = 2, spec.kv_heads = 1, spec.queries = 70, spec.keys = 1150;
      spec.head_dim = head_dim, spec.value_dim = head_dim == 24 ? 12 : 64;
      spec.magnitude = 2;
      spec.causal = CausalMode::kBottomRight;
      if (head_dim == 130) spec.softcap = 4.0f, spec.alibi = spec.sinks = true, spec.window_left = 90;
      const FastCase fast(spec);
      const SdpaResult whole = Compute(fast.Problem(), Here(), nullptr, Ask::kOutput);
      for (std::int64_t first = 0; first < spec.queries; first += piece) {
        const std::int64_t count = std::min(piece, spec.queries - first);
        SdpaProblem::Spec part = fast.ProblemSpec();
        part.query.data = part.query.Row(0, 0, first), part.query.length = count;
        part.key.length = part.value.length = spec.keys - spec.queries + first + count;
        const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(part);
        ASSERT_TRUE(problem.ok()) << problem.status();
        const SdpaResult actual = Compute(*problem, Here(), nullptr, Ask::kOutput);
        for (std::int64_t h = 0; h < spec.heads; ++h) {
          EXPECT_EQ(0, std::memcmp(actual.output.data() + h * count * spec.value_dim,
                                   whole.output.data() + (h * spec.queries + first) * spec.value_dim,
                                   static_cast<std::size_t>(count * spec.value_dim) * sizeof(float)))
              << "queries " << first << " to " << first + count << ", head " << h << ", " << spec;
        }
      }
    }
  }
}

TEST_P(FastKernelsTest, AttendWithoutALayerIsTheSameProblem) {
  SdpaCaseSpec spec;
  spec.queries = 20, spec.keys = 70;
  const FastCase fast(spec);
  AttendProblem::Spec attend;
  attend.embeddings = {fast.query.bytes.data(), 1, spec.queries, spec.head_dim};
  attend.context = {fast.key.bytes.data(), 1, spec.keys, spec.head_dim};
  attend.embeddings.type = attend.context.type = kBF16;
  attend.options.precision = Precision::kFast;
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(attend);
  ASSERT_TRUE(problem.ok()) << problem.status();
  EXPECT_EQ(FastKernelsOf(*problem, Here()), Here());
  TypedTensor output(kBF16, static_cast<std::size_t>(spec.queries * spec.head_dim));
  AttendOutputs outputs;
  outputs.output = output.bytes.data();
  ASSERT_TRUE(ComputeAttend(*problem, outputs, {.fast_kernels = Here()}).ok());
  SdpaProblem::Spec same = fast.ProblemSpec();
  same.value = same.key;
  EXPECT_TRUE(output == TypedTensor::From(Compute(*SdpaProblem::Create(same), Here()).output, kBF16));
}

// A masked key's value may be NaN, also as one of a pair; the rows that see no such value keep their bits.
TEST_P(FastKernelsTest, MaskedValuesMayBeNaN) {
  for (std::int64_t queries : {2, 60}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 301, spec.value_dim = 32;
    spec.causal = CausalMode::kBottomRight;
    const FastCase clean(spec);
    FastCase dirty(spec);
    for (std::int64_t i = 300 * 32; i < 301 * 32; ++i) {
      dirty.base.value[static_cast<std::size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
    }
    dirty.value = TypedTensor::From(dirty.base.value, kBF16);
    const SdpaResult expected = Compute(clean.Problem(), Here(), nullptr, Ask::kOutput);
    const SdpaResult actual = Compute(dirty.Problem(), Here(), nullptr, Ask::kOutput);
    const auto seen = static_cast<std::size_t>((queries - 1) * 32);
    EXPECT_EQ(0, std::memcmp(expected.output.data(), actual.output.data(), seen * sizeof(float)));
    for (std::size_t i = seen; i < actual.output.size(); ++i) EXPECT_TRUE(std::isnan(actual.output[i])) << i;
  }
}

// Products beyond float32's range are computed again in float64, as EXACT does.
TEST_P(FastKernelsTest, FiniteInputsOfAnySize) {
  for (std::int64_t queries : {1, 20}) {
    SdpaCaseSpec spec;
    spec.queries = queries, spec.keys = 70, spec.magnitude = 1e20f;
    const FastCase fast(spec);
    const SdpaProblem problem = fast.Problem();
    EXPECT_TRUE(AllNear(Compute(problem, Here()).output, ReferenceSdpa(problem).output, 0x1p-8));
  }
}

// Products and sums that are subnormal count as 0 for few rows as for many.
TEST_P(FastKernelsTest, SubnormalSumsHaveTheSameBitsForFewRowsAndMany) {
  SdpaCaseSpec spec;
  spec.queries = 20, spec.keys = 130, spec.value_dim = 64;
  FastCase fast(spec);
  for (float& x : fast.base.value) x *= 0x1p-124f;
  fast.value = TypedTensor::From(fast.base.value, kBF16);
  const SdpaResult many = Compute(fast.Problem(), Here(), nullptr, Ask::kOutput);
  for (std::int64_t queries : {1, 2, 5}) {
    SdpaProblem::Spec part = fast.ProblemSpec();
    part.query.length = queries;
    const SdpaResult few = Compute(*SdpaProblem::Create(part), Here(), nullptr, Ask::kOutput);
    EXPECT_EQ(0, std::memcmp(few.output.data(), many.output.data(), few.output.size() * sizeof(float))) << queries;
  }
}

// Masked keys and values need not be finite: what is then computed without them has the bits of any finite ones.
TEST_P(FastKernelsTest, WhatIsMaskedChangesNoBit) {
  for (std::int64_t queries : {1, 2, 7, 60}) {
    for (std::int64_t keys : {80, 301}) {
      for (std::int64_t head_dim : {40, 128}) {
        SdpaCaseSpec spec;
        spec.queries = queries, spec.keys = keys, spec.head_dim = head_dim, spec.value_dim = 64, spec.key_mask = true;
        const FastCase clean(spec);
        FastCase dirty(spec);
        const auto mask = clean.base.options.key_mask;
        std::int64_t masked = 0;
        for (std::int64_t j = 0; j < keys; ++j) {
          if (mask.Row(0, 0, 0)[j] != 0) continue;
          ++masked;
          dirty.base.value[static_cast<std::size_t>(j * 64 + j % 64)] = std::numeric_limits<float>::infinity();
          std::fill_n(dirty.base.key.begin() + j * head_dim, head_dim, std::numeric_limits<float>::quiet_NaN());
        }
        dirty.key = TypedTensor::From(dirty.base.key, kBF16);
        ASSERT_GT(masked, 0);
        dirty.value = TypedTensor::From(dirty.base.value, kBF16);
        EXPECT_TRUE(SameBits(Compute(clean.Problem(), Here()), Compute(dirty.Problem(), Here()))) << spec;
      }
    }
  }
}

// Tiles are read by assembly, of which sanitizers see nothing. The last keys and values end where no page is.
TEST_P(FastKernelsTest, NothingBehindTheTensorsIsRead) {
  for (std::int64_t queries : {1, 2, 8, 20}) {
    for (std::int64_t keys : {1, 15, 17, 33, 47, 64, 65, 79, 127, 300}) {
      for (std::int64_t dim : {2, 16, 32, 34, 64, 128, 130}) {
        SdpaCaseSpec spec;
        spec.queries = queries, spec.keys = keys, spec.head_dim = dim, spec.value_dim = dim % 3 == 0 ? dim : dim + 1;
        const FastCase fast(spec);
        const testing::GuardedMemory query(fast.query.bytes), key(fast.key.bytes), value(fast.value.bytes);
        SdpaProblem::Spec guarded = fast.ProblemSpec();
        guarded.query.data = query.data(), guarded.key.data = key.data(), guarded.value.data = value.data();
        const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(guarded);
        ASSERT_TRUE(problem.ok()) << problem.status();
        EXPECT_TRUE(SameBits(Compute(*problem, Here()), Compute(fast.Problem(), Here()))) << spec;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FastKernelsTest, ::testing::ValuesIn(testing::FastFamiliesHere()),
                         testing::NameOfFamily);

}  // namespace
}  // namespace attend
