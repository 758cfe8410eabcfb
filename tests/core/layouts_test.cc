// Queries, keys, values and outputs may be [B, T, H, E] as well as [B, H, T, E]: the same bits and the same cost.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "core/compute/compute_sdpa.h"
#include "core/runtime/executor.h"
#include "tests/support/result_bytes.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::Ask;
using testing::ResultBytes;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::TypedTensor;

// `split` [batch, heads, length, dim] as [batch, length, heads, dim].
TypedTensor Merged(const TypedTensor& split, std::int64_t batch, std::int64_t heads, std::int64_t length,
                   std::int64_t dim) {
  TypedTensor merged(split.type, split.size());
  const TypedHeadsView from = split.View(batch, heads, length, dim);
  const auto row_bytes = static_cast<std::size_t>(dim * ElementSize(split.type));
  std::byte* to = merged.bytes.data();
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < length; ++t) {
      for (std::int64_t h = 0; h < heads; ++h, to += row_bytes) std::memcpy(to, from.Row(b, h, t), row_bytes);
    }
  }
  return merged;
}

// A problem whose query, key and value are each in the layout that a bit of `merged` says: 1, 2 and 4.
struct LayoutCase {
  LayoutCase(const SdpaCase& sdpa_case, DataType type, unsigned merged)
      : query(TypedTensor::From(sdpa_case.query, type)),
        key(TypedTensor::From(sdpa_case.key, type)),
        value(TypedTensor::From(sdpa_case.value, type)) {
    const SdpaCaseSpec& s = sdpa_case.spec;
    spec.query = View(query, merged & 1, s.batch, s.heads, s.queries, s.head_dim);
    spec.key = View(key, merged & 2, s.batch, s.kv_heads, s.keys, s.head_dim);
    spec.value = View(value, merged & 4, s.batch, s.kv_heads, s.keys, s.value_dim);
    spec.options = sdpa_case.options;
  }
  LayoutCase(const LayoutCase&) = delete;
  SdpaProblem Problem() const { return *SdpaProblem::Create(spec); }

  TypedTensor query, key, value;
  SdpaProblem::Spec spec;

 private:
  static TypedHeadsView View(TypedTensor& tensor, bool merged, std::int64_t batch, std::int64_t heads,
                             std::int64_t length, std::int64_t dim) {
    if (!merged) return tensor.View(batch, heads, length, dim);
    tensor = Merged(tensor, batch, heads, length, dim);
    const void* data = tensor.bytes.data();
    return MergedTypedHeads(data, tensor.type, batch, heads, length, dim);
  }
};

std::vector<SdpaCaseSpec> Specs() {
  SdpaCaseSpec small;
  small.batch = 2, small.heads = 6, small.kv_heads = 3, small.queries = 5, small.keys = 33;
  small.head_dim = 9, small.value_dim = 7;
  SdpaCaseSpec decode = small;
  decode.queries = 1, decode.keys = 2500, decode.head_dim = 64, decode.value_dim = 64;
  SdpaCaseSpec prefill = small;
  prefill.queries = 50, prefill.keys = 300, prefill.head_dim = 16, prefill.causal = CausalMode::kBottomRight;
  SdpaCaseSpec rich = prefill;
  rich.keys = 200, rich.window_left = 90, rich.softcap = 5.0f;
  rich.mask = rich.key_mask = rich.bias = rich.alibi = rich.sinks = true;
  rich.valid_lengths = {150, 200};
  SdpaCaseSpec one_head = small;  // Both layouts are the same then.
  one_head.heads = one_head.kv_heads = 1;
  return {small, decode, prefill, rich, one_head};
}

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kFloat64};

TEST(Layouts, OfInputsAndOutputDoNotChangeBits) {
  Executor executor({.num_threads = 2});
  for (const SdpaCaseSpec& spec : Specs()) {
    const SdpaCase sdpa_case(spec);
    for (DataType type : kTypes) {
      const LayoutCase split(sdpa_case, type, 0);
      for (InstructionSet set : SupportedInstructionSets()) {
        const auto expected = ResultBytes(split.Problem(), {.instruction_set = set}, Ask::kPerHead);
        for (unsigned merged : {0u, 1u, 2u, 4u, 7u}) {
          const LayoutCase other(sdpa_case, type, merged);
          EXPECT_EQ(ResultBytes(other.Problem(), {.executor = &executor, .instruction_set = set}, Ask::kPerHead, true),
                    expected)
              << ::testing::PrintToString(spec) << DataTypeName(type) << InstructionSetName(set) << merged;
        }
      }
      const LayoutCase all(sdpa_case, type, 7);  // With averaged weights another way is taken.
      EXPECT_EQ(ResultBytes(all.Problem(), {}, Ask::kEverything, true),
                ResultBytes(split.Problem(), {}, Ask::kEverything));
    }
  }
}

// Numbers beyond float32's range on the way are computed again, one row at a time, from the same views.
TEST(Layouts, OfSpecialNumbersDoNotChangeBits) {
  for (const SdpaCaseSpec& spec : Specs()) {
    for (float special : {std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
      SdpaCase sdpa_case(spec);
      for (std::size_t i = 11; i < sdpa_case.key.size(); i += 97) sdpa_case.key[i] = special;
      for (std::size_t i = 7; i < sdpa_case.value.size(); i += 89) sdpa_case.value[i] = special;
      const LayoutCase split(sdpa_case, DataType::kFloat32, 0), merged(sdpa_case, DataType::kFloat32, 7);
      EXPECT_EQ(ResultBytes(merged.Problem(), {}, Ask::kPerHead, true), ResultBytes(split.Problem(), {}, Ask::kPerHead))
          << ::testing::PrintToString(spec) << special;
    }
  }
}

TEST(Layouts, OfARaggedBatchDoNotChangeBits) {
  SdpaCaseSpec spec;
  spec.heads = 4, spec.kv_heads = 2, spec.queries = 20, spec.keys = 90, spec.causal = CausalMode::kBottomRight;
  const SdpaCase sdpa_case(spec);
  const std::vector<std::int64_t> queries = {0, 3, 3, 12, 13, 20}, keys = {0, 10, 15, 85, 85, 90};
  for (DataType type : kTypes) {
    LayoutCase split(sdpa_case, type, 0), merged(sdpa_case, type, 7);
    for (SdpaProblem::Spec* s : {&split.spec, &merged.spec}) {
      s->options.cumulative_query_lengths = queries;
      s->options.cumulative_key_lengths = keys;
    }
    EXPECT_EQ(ResultBytes(merged.Problem(), {}, Ask::kEverything, true),
              ResultBytes(split.Problem(), {}, Ask::kEverything));
  }
}

// More keys and values than caches hold, for few rows: heads that lie side by side take turns with every block of keys.
TEST(Layouts, OfHeadsThatTakeTurnsDoNotChangeBits) {
  Executor executor({.num_threads = 2});
  for (std::int64_t kv_heads : {8, 9}) {
    SdpaCaseSpec spec;
    spec.heads = 2 * kv_heads, spec.kv_heads = kv_heads, spec.queries = 3, spec.keys = 4200;
    spec.head_dim = 128, spec.value_dim = 144, spec.causal = CausalMode::kBottomRight, spec.window_left = 4150;
    const SdpaCase sdpa_case(spec);
    for (DataType type : {DataType::kFloat32, DataType::kBFloat16}) {
      const LayoutCase split(sdpa_case, type, 0), merged(sdpa_case, type, 7), keys_merged(sdpa_case, type, 2);
      ASSERT_GT((split.key.bytes.size() + split.value.bytes.size()), std::size_t{16} << 20);
      const auto expected = ResultBytes(split.Problem(), {}, Ask::kOutput);
      EXPECT_EQ(ResultBytes(merged.Problem(), {}, Ask::kOutput, true), expected) << kv_heads << DataTypeName(type);
      EXPECT_EQ(ResultBytes(keys_merged.Problem(), {}, Ask::kOutput, true), expected);
      EXPECT_EQ(ResultBytes(merged.Problem(), {.executor = &executor}, Ask::kOutput, true), expected);
    }
  }
}

TEST(Layouts, CostTheSame) {
  const SdpaCase sdpa_case(Specs()[3]);
  for (DataType type : kTypes) {
    const LayoutCase split(sdpa_case, type, 0), merged(sdpa_case, type, 7);
    EXPECT_EQ(merged.Problem().Flops(), split.Problem().Flops());
    EXPECT_EQ(ScratchBytes(merged.Problem(), 2, true), ScratchBytes(split.Problem(), 2, true));
  }
}

}  // namespace
}  // namespace attend
