// A key mask [B, S] is a mask [B, H, T, S] that all heads and queries share: the same bits, whatever else is asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/reference/reference.h"
#include "core/runtime/executor.h"
#include "tests/support/layer_case.h"
#include "tests/support/result_bytes.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::Ask;
using testing::LayerCase;
using testing::LayerResult;
using testing::LayerSpec;
using testing::NormOver;
using testing::ResultBytes;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::TypedTensor;

constexpr auto kBF16 = DataType::kBFloat16, kF32 = DataType::kFloat32, kF64 = DataType::kFloat64;

// Key masks of every kind: scattered, whole blocks of 64 keys, everything of the first batch entry, all but the last.
enum class Pattern { kScattered, kBlocks, kFirstEntry, kOnlyLast };
constexpr Pattern kPatterns[] = {Pattern::kScattered, Pattern::kBlocks, Pattern::kFirstEntry, Pattern::kOnlyLast};

std::vector<std::uint8_t> MakeKeyMask(Pattern pattern, std::int64_t batch, std::int64_t keys) {
  testing::QuickRandom random(5);
  std::vector<std::uint8_t> mask;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t j = 0; j < keys; ++j) {
      const bool visible = pattern == Pattern::kScattered    ? random.Bits() % 3 != 0
                           : pattern == Pattern::kBlocks     ? j / 64 % 3 != b
                           : pattern == Pattern::kFirstEntry ? b != 0
                                                             : j == keys - 1;
      mask.push_back(visible ? static_cast<std::uint8_t>(1 + random.Bits() % 255) : 0);
    }
  }
  return mask;
}

// A problem in any type, once with a key mask and once with the mask [B, H, T, S] that says the same.
struct Pair {
  Pair(const SdpaCaseSpec& spec, DataType type, Pattern pattern)
      : base(spec), key_mask(MakeKeyMask(pattern, spec.batch, spec.keys)), type_(type) {
    const MaskView& own = base.options.mask;
    for (std::int64_t b = 0; b < spec.batch; ++b) {
      for (std::int64_t h = 0; h < spec.heads; ++h) {
        for (std::int64_t t = 0; t < spec.queries; ++t) {
          for (std::int64_t j = 0; j < spec.keys; ++j) {
            const bool seen = key_mask[static_cast<std::size_t>(b * spec.keys + j)] != 0;
            mask.push_back(seen && (!own || own.Row(b, h, t)[j] != 0) ? 1 : 0);
          }
        }
      }
    }
  }

  SdpaProblem WithKeyMask() {
    AttentionOptions options = base.options;
    options.key_mask = SplitHeads<const std::uint8_t>(key_mask.data(), base.spec.batch, 1, 1, base.spec.keys);
    return Problem(options);
  }
  SdpaProblem WithMask() {
    AttentionOptions options = base.options;
    const SdpaCaseSpec& s = base.spec;
    options.mask = SplitHeads<const std::uint8_t>(mask.data(), s.batch, s.heads, s.queries, s.keys);
    return Problem(options);
  }

  SdpaCase base;
  std::vector<std::uint8_t> key_mask, mask;

 private:
  SdpaProblem Problem(const AttentionOptions& options) {
    const SdpaCaseSpec& s = base.spec;
    if (query_.size() == 0) {  // Both problems view the same tensors, which tests may have changed before.
      query_ = TypedTensor::From(base.query, type_);
      key_ = TypedTensor::From(base.key, type_);
      value_ = TypedTensor::From(base.value, type_);
    }
    return *SdpaProblem::Create({query_.View(s.batch, s.heads, s.queries, s.head_dim),
                                 key_.View(s.batch, s.kv_heads, s.keys, s.head_dim),
                                 value_.View(s.batch, s.kv_heads, s.keys, s.value_dim), options});
  }

  DataType type_;
  TypedTensor query_{kF32, 0}, key_{kF32, 0}, value_{kF32, 0};
};

std::vector<SdpaCaseSpec> Specs() {
  SdpaCaseSpec small;
  small.batch = 2, small.heads = 4, small.kv_heads = 2, small.queries = 5, small.keys = 33, small.head_dim = 9;
  SdpaCaseSpec decode = small;
  decode.queries = 1, decode.keys = 2500, decode.head_dim = decode.value_dim = 64;
  SdpaCaseSpec prefill = small;
  prefill.queries = 50, prefill.keys = 300, prefill.head_dim = 16, prefill.causal = CausalMode::kBottomRight;
  SdpaCaseSpec rich = small;
  rich.queries = 60, rich.keys = 200, rich.window_left = 90, rich.softcap = 5.0f;
  rich.mask = rich.bias = rich.alibi = rich.sinks = true;
  rich.valid_lengths = {150, 200};
  return {small, decode, prefill, rich};
}

TEST(KeyMask, HasTheBitsOfTheSameMaskForEveryHeadAndQuery) {
  Executor executor({.num_threads = 2});
  for (const SdpaCaseSpec& spec : Specs()) {
    for (DataType type : {kF32, kBF16, kF64}) {
      for (Pattern pattern : kPatterns) {
        Pair pair(spec, type, pattern);
        const SdpaProblem one = pair.WithKeyMask(), other = pair.WithMask();
        for (InstructionSet set : SupportedInstructionSets()) {
          for (Ask ask : {Ask::kOutput, Ask::kPerHead, Ask::kEverything}) {
            EXPECT_EQ(ResultBytes(one, {.executor = &executor, .instruction_set = set}, ask),
                      ResultBytes(other, {.executor = nullptr, .instruction_set = set}, ask))
                << ::testing::PrintToString(spec) << DataTypeName(type) << " pattern " << static_cast<int>(pattern)
                << InstructionSetName(set);
          }
        }
      }
    }
  }
}

// Numbers that are not finite, or leave float32's range on the way, behind the mask and before it.
TEST(KeyMask, HasTheBitsOfTheSameMaskOverSpecialNumbers) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  for (const SdpaCaseSpec& spec : Specs()) {
    for (float special : {kNan, kInfinity, 3e38f, 1e-41f}) {
      Pair pair(spec, kF32, Pattern::kScattered);
      const auto poison = [special](std::vector<float>& numbers) {
        for (std::size_t i = 11; i < numbers.size(); i += 97) numbers[i] = special;
      };
      poison(pair.base.key), poison(pair.base.value);
      const SdpaProblem one = pair.WithKeyMask(), other = pair.WithMask();
      for (InstructionSet set : SupportedInstructionSets()) {
        EXPECT_EQ(ResultBytes(one, {.instruction_set = set}, Ask::kPerHead),
                  ResultBytes(other, {.instruction_set = set}, Ask::kPerHead))
            << ::testing::PrintToString(spec) << special << InstructionSetName(set);
      }
    }
  }
}

// Nothing of a masked key reaches a result, not even as 0 * NaN.
TEST(KeyMask, MaskedKeysMayHoldAnything) {
  for (const SdpaCaseSpec& spec : Specs()) {
    for (DataType type : {kF32, kF64}) {
      Pair clean(spec, type, Pattern::kScattered), dirty(spec, type, Pattern::kScattered);
      for (std::int64_t row = 0; row < spec.batch * spec.kv_heads * spec.keys; ++row) {
        const std::int64_t b = row / (spec.kv_heads * spec.keys), j = row % spec.keys;
        if (clean.key_mask[static_cast<std::size_t>(b * spec.keys + j)] != 0) continue;
        dirty.base.key[static_cast<std::size_t>(row * spec.head_dim)] = std::numeric_limits<float>::quiet_NaN();
        dirty.base.value[static_cast<std::size_t>(row * spec.value_dim)] = std::numeric_limits<float>::infinity();
      }
      for (InstructionSet set : SupportedInstructionSets()) {
        EXPECT_EQ(ResultBytes(clean.WithKeyMask(), {.instruction_set = set}, Ask::kEverything),
                  ResultBytes(dirty.WithKeyMask(), {.instruction_set = set}, Ask::kEverything))
            << ::testing::PrintToString(spec) << InstructionSetName(set);
      }
    }
  }
}

// Where positions do not matter, padding at the end may be said either way.
TEST(KeyMask, OfATailEqualsValidLengths) {
  SdpaCaseSpec spec = Specs()[2];
  spec.causal = CausalMode::kNone;
  spec.valid_lengths = {200, 3};
  const SdpaCase lengths(spec);
  spec.valid_lengths.clear();
  const SdpaCase whole(spec);
  std::vector<std::uint8_t> key_mask(static_cast<std::size_t>(2 * spec.keys), 0);
  std::fill_n(key_mask.begin(), 200, 1);
  std::fill_n(key_mask.begin() + spec.keys, 3, 1);
  AttentionOptions options = whole.options;
  options.key_mask = SplitHeads<const std::uint8_t>(key_mask.data(), 2, 1, 1, spec.keys);
  const SdpaProblem masked = *SdpaProblem::Create({whole.query_view, whole.key_view, whole.value_view, options});
  EXPECT_EQ(ResultBytes(masked, {}, Ask::kEverything), ResultBytes(lengths.Problem(), {}, Ask::kEverything));
}

// An axis of size 1 is repeated: one mask for the batch, one bit for the keys of each entry.
TEST(KeyMask, AxesOfSizeOneAreRepeated) {
  const SdpaCase sdpa_case(Specs()[0]);
  const std::int64_t keys = sdpa_case.spec.keys;
  const auto bytes = [&](std::int64_t batch, std::int64_t length, const std::vector<std::uint8_t>& mask,
                         DataType type) {
    AttentionOptions options = sdpa_case.options;
    options.key_mask = SplitHeads<const std::uint8_t>(mask.data(), batch, 1, 1, length);
    const TypedTensor query = TypedTensor::From(sdpa_case.query, type), key = TypedTensor::From(sdpa_case.key, type),
                      value = TypedTensor::From(sdpa_case.value, type);
    const SdpaProblem problem =
        *SdpaProblem::Create({query.View(2, 4, 5, 9), key.View(2, 2, keys, 9), value.View(2, 2, keys, 8), options});
    return ResultBytes(problem, {}, Ask::kEverything);
  };
  std::vector<std::uint8_t> shared = MakeKeyMask(Pattern::kScattered, 1, keys), both = shared;
  both.insert(both.end(), shared.begin(), shared.end());
  std::vector<std::uint8_t> entries(static_cast<std::size_t>(2 * keys), 0);
  std::fill_n(entries.begin() + keys, keys, 1);
  for (DataType type : {kF32, kF64}) {
    EXPECT_EQ(bytes(1, keys, shared, type), bytes(2, keys, both, type));
    EXPECT_EQ(bytes(2, 1, {0, 1}, type), bytes(2, keys, entries, type));
  }
}

// In a ragged batch the mask counts all keys, while a mask's columns count each sequence's own.
TEST(KeyMask, OfARaggedBatchCountsAllKeys) {
  SdpaCaseSpec spec;
  spec.heads = 4, spec.kv_heads = 2, spec.queries = 20, spec.keys = 90, spec.causal = CausalMode::kBottomRight;
  const SdpaCase sdpa_case(spec);
  const std::vector<std::int64_t> queries = {0, 3, 3, 12, 13, 20}, keys = {0, 10, 15, 85, 85, 90};
  const std::vector<std::uint8_t> key_mask = MakeKeyMask(Pattern::kScattered, 1, 90);
  std::vector<std::uint8_t> mask(20 * 70, 0);  // The longest sequence has 70 keys.
  for (std::size_t n = 0; n + 1 < queries.size(); ++n) {
    for (std::int64_t t = queries[n]; t < queries[n + 1]; ++t) {
      for (std::int64_t j = keys[n]; j < keys[n + 1]; ++j) {
        mask[static_cast<std::size_t>(t * 70 + j - keys[n])] = key_mask[static_cast<std::size_t>(j)];
      }
    }
  }
  SdpaProblem::Spec problem{sdpa_case.query_view, sdpa_case.key_view, sdpa_case.value_view, sdpa_case.options};
  problem.options.cumulative_query_lengths = queries;
  problem.options.cumulative_key_lengths = keys;
  SdpaProblem::Spec with_mask = problem;
  problem.options.key_mask = SplitHeads<const std::uint8_t>(key_mask.data(), 1, 1, 1, 90);
  with_mask.options.mask = SplitHeads<const std::uint8_t>(mask.data(), 1, 1, 20, 70);
  const SdpaProblem one = *SdpaProblem::Create(problem), other = *SdpaProblem::Create(with_mask);
  EXPECT_EQ(ResultBytes(one, {}, Ask::kEverything), ResultBytes(other, {}, Ask::kEverything));
  EXPECT_EQ(ReferenceSdpa(one).output, ReferenceSdpa(other).output);
  problem.options.key_mask = SplitHeads<const std::uint8_t>(key_mask.data(), 1, 1, 1, 70);
  EXPECT_FALSE(SdpaProblem::Create(problem).ok()) << "a mask over the longest sequence alone";
}

// Through a layer, over the tokens of the context or of the text itself.
TEST(KeyMask, OfALayerHasTheBitsOfTheSameMask) {
  for (bool context : {false, true}) {
    LayerSpec spec;
    spec.batch = 2, spec.queries = 30, spec.keys = context ? 90 : 30, spec.context = context;
    spec.heads = 4, spec.kv_heads = 2, spec.rotary_dim = 8, spec.query_norm = NormOver::kHead;
    spec.causal = CausalMode::kBottomRight;
    const LayerCase layer_case(spec);
    const std::vector<std::uint8_t> key_mask = MakeKeyMask(Pattern::kScattered, 2, spec.keys);
    AttendProblem::Spec with_key_mask = layer_case.ProblemSpec(), with_mask = with_key_mask;
    with_key_mask.options.key_mask = SplitHeads<const std::uint8_t>(key_mask.data(), 2, 1, 1, spec.keys);
    with_mask.options.mask = with_key_mask.options.key_mask;
    const AttendProblem one = *AttendProblem::Create(with_key_mask), other = *AttendProblem::Create(with_mask);
    LayerResult actual(one), expected(other);
    ASSERT_TRUE(ComputeAttend(one, actual.outputs, {}).ok());
    ASSERT_TRUE(ComputeAttend(other, expected.outputs, {}).ok());
    EXPECT_TRUE(actual == expected);
    EXPECT_EQ(ReferenceAttend(one).output, ReferenceAttend(other).output);
    EXPECT_TRUE(testing::AllNear(actual.output.Doubles(), ReferenceAttend(one).output, 3e-6));
  }
}

// A bound of what is computed: keys behind the mask count, as they do behind a mask.
TEST(KeyMask, CostsNoMoreThanNoMask) {
  Pair pair(Specs()[2], kF32, Pattern::kFirstEntry);
  EXPECT_EQ(pair.WithKeyMask().Flops(), pair.base.Problem().Flops());
}

}  // namespace
}  // namespace attend
