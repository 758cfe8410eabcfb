// INT8 keys and values: every bit is that of the dequantised FLOAT32 problem, however it is computed.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/compute/compute_sdpa.h"
#include "core/kernels/fast_kernels.h"
#include "core/kernels/kernel_table.h"
#include "core/reference/reference.h"
#include "core/runtime/executor.h"
#include "tests/support/int8_case.h"
#include "tests/support/result_bytes.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::Ask;
using testing::Int8Case;
using testing::Int8Of;
using testing::ResultBytes;
using testing::SameBits;
using testing::SdpaCaseSpec;

constexpr Int8Of kKinds[] = {Int8Of::kBoth, Int8Of::kKey, Int8Of::kValue};
constexpr std::int64_t kHeadSizes[] = {1, 7, 64, 80, 128, 129};
constexpr std::int64_t kKeyLengths[] = {1, 63, 64, 65, 1023, 1025};

// Every instruction set on 1, 2, 3 and 7 threads in turns, and every mixture of types among `kinds`.
void ExpectBitsOfFloat32(Int8Case& c, Ask ask, bool merged = false,
                         const std::vector<Int8Of>& kinds = {std::begin(kKinds), std::end(kKinds)}) {
  static int turn = 0;
  static const std::unique_ptr<Executor> executors[] = {
      nullptr, std::make_unique<Executor>(Executor::Options{.num_threads = 2}),
      std::make_unique<Executor>(Executor::Options{.num_threads = 3}),
      std::make_unique<Executor>(Executor::Options{.num_threads = 7})};
  const SdpaProblem wide = c.WideProblem();
  std::optional<std::vector<std::byte>> of_all;  // One result for all sets that promise the same bits.
  for (InstructionSet set : SupportedInstructionSets()) {
    const bool is_shared = IsBitReproducible(set);
    const auto expected = is_shared && of_all ? *of_all : ResultBytes(wide, {.instruction_set = set}, ask);
    if (is_shared) of_all = expected;
    for (Int8Of of : kinds) {
      Executor* executor = executors[++turn % 4].get();
      const ComputeContext context{.executor = executor, .instruction_set = set};
      EXPECT_TRUE(ResultBytes(c.Problem(of), context, ask) == expected)
          << ::testing::PrintToString(c.base.spec) << " " << InstructionSetName(set) << " threads " << turn % 4
          << " kind " << static_cast<int>(of) << (merged ? " merged" : "");
    }
  }
}

SdpaCaseSpec Spec(std::int64_t rows, std::int64_t keys, std::int64_t head_dim, std::int64_t value_dim) {
  SdpaCaseSpec spec;
  spec.queries = rows, spec.keys = keys, spec.head_dim = head_dim, spec.value_dim = value_dim;
  spec.seed = static_cast<std::uint64_t>(rows * 1000000 + keys * 1000 + head_dim);
  return spec;
}

TEST(KernelsInt8, EveryHeadSizeAndLengthGivesTheBitsOfFloat32) {
  std::int64_t rows = 0;
  for (std::int64_t head_dim : kHeadSizes) {
    for (std::int64_t keys : kKeyLengths) {
      for (std::int64_t value_dim : {head_dim, kHeadSizes[keys % 6]}) {
        Int8Case c(Spec(1 + rows++ % 20, keys, head_dim, value_dim));
        ExpectBitsOfFloat32(c, Ask::kPerHead);
      }
    }
  }
}

TEST(KernelsInt8, EveryNumberOfRowsGivesTheBitsOfFloat32) {
  for (std::int64_t rows = 1; rows <= 20; ++rows) {
    for (std::int64_t dim : {64, 80, 128}) {
      // More than a chunk of keys now and then: with sanitizers all of them would take minutes.
      SdpaCaseSpec spec = Spec(1, rows % 6 == 1 ? 1090 : 130, dim, dim);
      spec.batch = 2, spec.heads = 2 * rows, spec.kv_heads = 2;
      Int8Case c(spec);
      ExpectBitsOfFloat32(c, Ask::kOutput);
    }
  }
}

std::vector<SdpaCaseSpec> RichSpecs() {
  std::vector<SdpaCaseSpec> specs;
  for (std::int64_t rows : {1, 3, 17, 70}) {
    SdpaCaseSpec plain = Spec(rows, 200, 64, 32);
    plain.batch = 2, plain.heads = 4, plain.kv_heads = 2;
    SdpaCaseSpec causal = plain, rich = plain, padded = plain, top_left = plain;
    causal.causal = CausalMode::kBottomRight;
    rich.causal = CausalMode::kBottomRight, rich.window_left = 150, rich.softcap = 5.0f;
    rich.mask = rich.bias = rich.alibi = rich.sinks = true;
    padded.valid_lengths = {130, 0}, padded.key_mask = true, padded.bias = padded.broadcast = true;
    top_left.causal = CausalMode::kTopLeft, top_left.mask = true, top_left.scale = 0.7f;
    for (const SdpaCaseSpec& spec : {plain, causal, rich, padded, top_left}) specs.push_back(spec);
  }
  return specs;
}

TEST(KernelsInt8, EveryOptionGivesTheBitsOfFloat32) {
  for (const SdpaCaseSpec& spec : RichSpecs()) {
    for (bool merged : {false, true}) {
      Int8Case c(spec, merged);
      ExpectBitsOfFloat32(c, Ask::kPerHead, merged);
      ExpectBitsOfFloat32(c, Ask::kEverything, merged);
    }
  }
}

// Not finite and out of float32's range: scales that are so, and products that become so. Rows are then selected or
// computed again in float64, from the same numbers.
TEST(KernelsInt8, SpecialScalesGiveTheBitsOfFloat32) {
  constexpr float kSpecial[] = {std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::infinity(),
                                -3e38f,
                                1e37f,
                                -1e20f,
                                1e-38f,
                                std::numeric_limits<float>::denorm_min(),
                                0.0f,
                                -0.0f};
  for (const SdpaCaseSpec& rich : RichSpecs()) {
    if (rich.queries > 17 || rich.bias) continue;
    SdpaCaseSpec spec = rich;
    spec.keys = 70;
    if (!spec.valid_lengths.empty()) spec.valid_lengths = {40, 0};
    for (float special : kSpecial) {
      for (bool in_values : {false, true}) {
        Int8Case c(spec);
        std::vector<float>& scales = in_values ? c.value.scales : c.key.scales;
        for (std::size_t i = 5; i < scales.size(); i += 23) scales[i] = special;
        ExpectBitsOfFloat32(c, Ask::kPerHead);
      }
    }
  }
}

// More than caches hold, where heads that lie side by side take turns and lines are requested further ahead.
TEST(KernelsInt8, BeyondCachesGivesTheBitsOfFloat32) {
  for (const auto& [merged, rows] : {std::pair(false, 1), {true, 4}}) {
    SdpaCaseSpec spec = Spec(rows, 8300, 128, 128);
    spec.heads = spec.kv_heads = 8, spec.causal = CausalMode::kBottomRight;
    Int8Case c(spec, merged);
    ASSERT_GT(c.key.numbers.size() + c.value.numbers.size(), std::size_t{16} << 20);
    ExpectBitsOfFloat32(c, Ask::kOutput, merged, {Int8Of::kBoth});
  }
}

TEST(KernelsInt8, RaggedBatchesGiveTheBitsOfFloat32) {
  const std::vector<std::int64_t> queries = {0, 0, 3, 25, 26}, keys = {0, 5, 75, 80, 300};
  SdpaCaseSpec spec = Spec(26, 300, 64, 80);
  spec.heads = 4, spec.kv_heads = 2, spec.causal = CausalMode::kBottomRight;
  for (bool merged : {false, true}) {
    Int8Case c(spec, merged);
    c.base.options.cumulative_query_lengths = queries;
    c.base.options.cumulative_key_lengths = keys;
    ExpectBitsOfFloat32(c, Ask::kEverything, merged);
  }
}

// One scale for all tokens, or for all heads.
TEST(KernelsInt8, ScalesMayBeBroadcast) {
  for (std::int64_t rows : {1, 20}) {
    SdpaCaseSpec spec = Spec(rows, 130, 64, 64);
    spec.heads = spec.kv_heads = 2;
    Int8Case c(spec);
    std::vector<float>& scales = c.key.scales;
    for (float& scale : scales) scale = 0.01f;
    const auto expected = ResultBytes(c.WideProblem(), {}, Ask::kPerHead);
    HeadsView one = SplitHeads<const float>(scales.data(), 1, 2, 130, 1);
    one.head_stride = one.row_stride = 0;
    const SdpaProblem problem = *SdpaProblem::Create({.query = c.base.query_view,
                                                      .key = c.key.View(c.key.numbers, 64),
                                                      .value = c.value.View(c.value.floats, 64),
                                                      .key_scales = one});
    EXPECT_TRUE(ResultBytes(problem, {}, Ask::kPerHead) == expected) << rows;
  }
}

TEST(KernelsInt8, TheReferenceReadsTheSameNumbers) {
  Int8Case c(RichSpecs()[7]);
  EXPECT_EQ(ReferenceSdpa(c.Problem()).output, ReferenceSdpa(c.WideProblem()).output);
  EXPECT_EQ(ReferenceSdpa(c.Problem()).scores, ReferenceSdpa(c.WideProblem()).scores);
}

TEST(KernelsInt8, RebindViewsOtherScales) {
  const SdpaCaseSpec spec = Spec(3, 70, 16, 16);
  Int8Case c(spec), other(spec);
  for (float& scale : other.key.scales) scale *= 1.5f;
  for (float& scale : other.value.scales) scale *= 0.5f;
  SdpaProblem problem = c.Problem();
  const SdpaProblem to = other.Problem();
  problem.Rebind({to.query(), to.key(), to.value(), to.options(), to.key_scales(), to.value_scales()});
  EXPECT_TRUE(ResultBytes(problem, {}, Ask::kOutput) == ResultBytes(other.WideProblem(), {}, Ask::kOutput));
}

TEST(KernelsInt8, PrecisionFastComputesItExactly) {
  Int8Case c(Spec(20, 70, 64, 64));
  const auto expected = ResultBytes(c.WideProblem(), {}, Ask::kOutput);
  c.base.options.precision = Precision::kFast;
  const FastKernels fast = ChooseFastKernels(FastKernelsMode::kOn, BestInstructionSet());
  EXPECT_EQ(FastKernelsOf(c.Problem(), fast), FastKernels::kNone);
  for (const FastKernels family : kFastFamilies) EXPECT_EQ(FastKernelsOf(c.Problem(), family), FastKernels::kNone);
  EXPECT_TRUE(ResultBytes(c.Problem(), {.fast_kernels = fast}, Ask::kOutput) == expected);
}

TEST(KernelsInt8, ScratchHoldsTheCopies) {
  Int8Case c(Spec(20, 70, 64, 64));
  for (Int8Of of : kKinds) EXPECT_GT(ScratchBytes(c.Problem(of), 1, false), ScratchBytes(c.WideProblem(), 1, false));
}

// Every INT8 number, by every instruction set, to exactly as much memory as there is.
TEST(KernelsInt8, DequantizeRoundsEachProductOnce) {
  std::vector<std::int8_t> all;
  for (int i = -128; i < 128; ++i) all.push_back(static_cast<std::int8_t>(i));
  for (InstructionSet set : SupportedInstructionSets()) {
    for (float scale : {0.1f, -1.2345678f, 3e38f, 1e-42f, 0.0f, std::numeric_limits<float>::quiet_NaN()}) {
      for (std::size_t count : {0, 1, 7, 15, 16, 17, 100, 255, 256}) {
        const std::vector<std::int8_t> from(all.end() - static_cast<std::ptrdiff_t>(count), all.end());
        std::vector<float> to(count), expected;
        for (std::int8_t x : from) expected.push_back(static_cast<float>(x) * scale);
        ConvertKernelsFor(set).dequantize(from.data(), static_cast<std::int64_t>(count), scale, to.data());
        EXPECT_TRUE(SameBits(to, expected)) << InstructionSetName(set) << " " << scale << " " << count;
      }
    }
  }
}

}  // namespace
}  // namespace attend
