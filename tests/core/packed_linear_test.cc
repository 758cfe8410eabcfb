// Weights packed once against the same weights packed in each call: the same bits, whatever their type, shape and
// address.
#include "core/layer/projection.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/kernels/kernel_table.h"
#include "gtest/gtest.h"
#include "tests/support/attend_case.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::AttendCase;
using testing::AttendResult;
using testing::AttendSpec;
using testing::QuickRandom;
using testing::SameBits;
using testing::TypedTensor;

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};

std::vector<float> Random(std::int64_t size, std::uint64_t seed) {
  std::vector<float> numbers(static_cast<std::size_t>(size));
  QuickRandom(seed).Fill(numbers, 1);
  return numbers;
}

// A linear map of one shape and type with its numbers.
struct Map {
  Map(std::int64_t out, std::int64_t in, DataType type, bool has_bias)
      : weight(TypedTensor::From(Random(out * in, 3), type)), bias(TypedTensor::From(Random(out, 5), type)) {
    linear = {weight.bytes.data(), has_bias ? bias.bytes.data() : nullptr, out, in, type, type};
  }
  TypedTensor weight, bias;
  LinearView linear;
};

std::vector<float> Projected(const LinearView& linear, const std::vector<float>& x, InstructionSet set) {
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / linear.in_features;
  std::vector<float> y(static_cast<std::size_t>(rows * linear.out_features));
  const Projection<float> projection{x.data(), rows, linear, y.data()};
  ComputeContext context;
  context.instruction_set = set;
  WorkspacePool pool;
  Project(context, &projection, 1, pool);
  return y;
}

// Around a vector, a panel (12 to 48 features), a slab (128), and the rows from which on 16-bit panels are widened to
// memory (12 or 24).
TEST(PackedLinear, GivesTheBitsOfTheUnpackedWeights) {
  for (InstructionSet set : SupportedInstructionSets()) {
    for (DataType type : kTypes) {
      for (std::int64_t out : {1, 3, 15, 16, 17, 47, 48, 49, 97}) {
        for (std::int64_t in : {1, 2, 127, 128, 129, 260}) {
          const Map map(out, in, type, out % 2 == 1);
          const PackedLinear packed(map.linear, set);
          LinearView linear = map.linear;
          for (std::int64_t rows : {1, 11, 23, 50}) {
            const std::vector<float> x = Random(rows * in, 11);
            linear.packed = nullptr;
            const std::vector<float> expected = Projected(linear, x, set);
            linear.packed = &packed;
            EXPECT_TRUE(SameBits(expected, Projected(linear, x, set)))
                << InstructionSetName(set) << " " << DataTypeName(type) << " " << out << "x" << in << " rows " << rows;
          }
        }
      }
    }
  }
}

// Around the blocks of panels that one thread packs.
TEST(PackedLinear, ThreadsThatHelpDoNotChangeTheBits) {
  Executor executor({.num_threads = 3});
  for (InstructionSet set : SupportedInstructionSets()) {
    for (DataType type : kTypes) {
      for (std::int64_t out : {1, 191, 192, 193, 700}) {
        const Map map(out, 130, type, true);
        const PackedLinear alone(map.linear, set), helped(map.linear, set, &executor);
        ASSERT_EQ(helped.bytes(), alone.bytes());
        const std::int64_t panels = alone.bytes() - 4 * out;
        EXPECT_EQ(std::memcmp(helped.panels(), alone.panels(), static_cast<std::size_t>(panels)), 0)
            << InstructionSetName(set) << " " << DataTypeName(type) << " " << out;
      }
    }
  }
}

// What was packed is what is used: the weights it was made of may be gone.
TEST(PackedLinear, NeedsNoWeightsAfterwards) {
  Map map(50, 70, DataType::kBFloat16, true);
  const std::vector<float> x = Random(3 * 70, 11);
  for (InstructionSet set : SupportedInstructionSets()) {
    const std::vector<float> expected = Projected(map.linear, x, set);
    const PackedLinear packed(map.linear, set);
    LinearView linear = map.linear;
    linear.packed = &packed;
    linear.weight = linear.bias = nullptr;
    EXPECT_TRUE(SameBits(expected, Projected(linear, x, set)));
  }
}

// As in a mapped file, where nothing is aligned. UBSan watches the loads.
TEST(PackedLinear, WeightsMayLieAtAnyAddress) {
  for (InstructionSet set : SupportedInstructionSets()) {
    for (DataType type : kTypes) {
      const Map map(50, 200, type, true);
      const std::vector<float> x = Random(3 * 200, 11);
      const std::vector<float> expected = Projected(map.linear, x, set);
      for (std::size_t shift : {1, 2, 3}) {
        std::vector<std::byte> file(shift + map.weight.bytes.size() + map.bias.bytes.size());
        std::memcpy(file.data() + shift, map.weight.bytes.data(), map.weight.bytes.size());
        std::memcpy(file.data() + shift + map.weight.bytes.size(), map.bias.bytes.data(), map.bias.bytes.size());
        LinearView linear = map.linear;
        linear.weight = file.data() + shift;
        linear.bias = file.data() + shift + map.weight.bytes.size();
        const PackedLinear packed(linear, set);
        linear.packed = &packed;
        EXPECT_TRUE(SameBits(expected, Projected(linear, x, set))) << InstructionSetName(set) << " shift " << shift;
      }
    }
  }
}

TEST(PackedLinear, OfAnotherInstructionSetIsNotUsed) {
  const Map map(33, 40, DataType::kFloat32, true), other(33, 40, DataType::kFloat16, false);
  const std::vector<float> x = Random(40, 11);
  for (InstructionSet set : SupportedInstructionSets()) {
    for (InstructionSet packed_set : SupportedInstructionSets()) {
      const PackedLinear packed(other.linear, packed_set);
      LinearView linear = map.linear;
      linear.packed = &packed;
      const LinearView& used = set == packed_set ? other.linear : map.linear;
      EXPECT_TRUE(SameBits(Projected(used, x, set), Projected(linear, x, set)));
    }
  }
}

TEST(PackedLinear, SaysHowLargeItIs) {
  const std::int64_t lanes = 16;
  for (DataType type : kTypes) {
    const Map map(33, 40, type, true);
    const std::int64_t size = ElementSize(type);
    for (InstructionSet set : SupportedInstructionSets()) {
      const PackedLinear packed(map.linear, set);
      EXPECT_EQ(packed.instruction_set(), set);
      EXPECT_EQ(packed.bytes(), PackedLinear::BytesFor(map.linear, set));
      EXPECT_GE(packed.bytes(), size * 33 * 40 + 4 * 33);
      EXPECT_LE(packed.bytes(), size * (33 + lanes - 1) * 40 + 4 * 33);
    }
  }
}

TEST(PackedLinear, AWholeLayerHasTheSameBits) {
  AttendSpec spec;
  spec.queries = spec.keys = 9, spec.embed = 50, spec.output_dim = 51;
  spec.heads = 4, spec.kv_heads = 2, spec.head_dim = 13, spec.value_dim = 12;
  const AttendCase attend_case(spec);
  const AttendProblem unpacked = attend_case.Problem();
  const InstructionSet set = BestInstructionSet();
  const LayerView& layer = *unpacked.layer();
  const PackedLinear query(layer.query, set), key(layer.key, set), value(layer.value, set), output(layer.output, set);
  AttendProblem::Spec named;
  named.embeddings = unpacked.embeddings();
  named.layer = layer;
  named.layer->query.packed = &query, named.layer->key.packed = &key;
  named.layer->value.packed = &value, named.layer->output.packed = &output;
  for (LinearView* linear : {&named.layer->query, &named.layer->key, &named.layer->value, &named.layer->output}) {
    linear->weight = linear->bias = nullptr;
  }
  const absl::StatusOr<AttendProblem> packed = AttendProblem::Create(named);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(packed->Flops(), unpacked.Flops());
  AttendResult expected(unpacked), actual(*packed);
  ASSERT_TRUE(ComputeAttend(unpacked, expected.outputs, {}).ok());
  ASSERT_TRUE(ComputeAttend(*packed, actual.outputs, {}).ok());
  EXPECT_TRUE(SameBits(expected.output, actual.output));
  EXPECT_TRUE(SameBits(expected.query, actual.query));
  EXPECT_TRUE(SameBits(expected.value, actual.value));
}

}  // namespace
}  // namespace attend
