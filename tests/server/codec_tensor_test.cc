// What a tensor field accepts, at each bound and one step beyond it.
#include "server/requests/tensor_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "tests/support/reader_vs_protobuf.h"
#include "tests/support/tensor_messages.h"

namespace attend::server {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr TensorRule kFloatRule = {"query", {1}, TypeRule::kFloat32, {1, 3, 8}, "[A], [A, B, C] or eight axes"};
constexpr TensorRule kNumberRule = {"query", {1}, TypeRule::kNumbers, {1, 3}, "[A] or [A, B, C]"};
constexpr TensorRule kWidenedRule = {"query", {1}, TypeRule::kWidened, {1, 3}, "[A] or [A, B, C]"};
constexpr TensorRule kBoolRule = {"query", {1}, TypeRule::kBool, {2}, "[T, S]"};

struct Case {
  std::string name;
  std::function<void(v1::Tensor&)> change;  // Of a FLOAT32 [2, 3, 4] in `data`.
  std::string field;                        // Empty: accepted.
  std::string message;
  const TensorRule* rule = &kFloatRule;
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

void SetShape(v1::Tensor& tensor, const std::vector<std::int64_t>& shape) {
  tensor.clear_shape();
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
}

// Sets the shape and as many bytes as it takes.
void Resize(v1::Tensor& tensor, const std::vector<std::int64_t>& shape) {
  SetShape(tensor, shape);
  tensor.set_data(std::string(static_cast<std::size_t>(NumElements(shape) * 4), 'x'));
}

void UseType(v1::Tensor& tensor, v1::DataType type, int size) {
  tensor.set_data_type(type);
  tensor.set_data(std::string(static_cast<std::size_t>(24 * size), '\1'));
}

void UseBool(v1::Tensor& tensor, std::size_t bytes) { tensor = BoolTensor({2, 3}, std::string(bytes, '\1')); }

std::vector<Case> Cases() {
  return {
      {"AsItIs", [](v1::Tensor&) {}, ""},
      {"TypeByDefault", [](v1::Tensor& t) { t.clear_data_type(); }, ""},
      {"OneAxis", [](v1::Tensor& t) { Resize(t, {1}); }, ""},
      {"EightAxes",
       [](v1::Tensor& t) {
         Resize(t, {1, 2, 1, 2, 1, 2, 1, 2});
       },
       ""},
      {"Values", [](v1::Tensor& t) { UseValues(t); }, ""},
      {"NoAxes", [](v1::Tensor& t) { t.clear_shape(); }, "query.shape",
       "query.shape is empty; it must be [A], [A, B, C]"},
      {"TwoAxes",
       [](v1::Tensor& t) {
         Resize(t, {2, 12});
       },
       "query.shape", "has 2 axes; it must be [A]"},
      {"NineAxes",
       [](v1::Tensor& t) {
         Resize(t, {1, 1, 1, 1, 1, 1, 1, 1, 1});
       },
       "query.shape", "has 9 axes"},
      {"HundredAxes", [](v1::Tensor& t) { Resize(t, std::vector<std::int64_t>(100, 1)); }, "query.shape", "100 axes"},
      {"OneAxisWhereTwoAreTaken", [](v1::Tensor& t) { t = BoolTensor({2}, "\1\1"); }, "query.shape",
       "has 1 axis; it must be [T, S]", &kBoolRule},
      {"ZeroAxis",
       [](v1::Tensor& t) {
         SetShape(t, {2, 0, 4});
       },
       "query.shape[1]", "is 0; every axis must be at least 1"},
      {"ZeroAxisBehindAnOverflow",
       [](v1::Tensor& t) {
         SetShape(t, {kMax, 2, 0});
       },
       "query.shape", "any machine"},
      {"NegativeAxis",
       [](v1::Tensor& t) {
         SetShape(t, {-2, 3, -4});
       },
       "query.shape[0]", "is -2"},
      {"NegativeAxesWithTheRightProduct",
       [](v1::Tensor& t) {
         SetShape(t, {2, -3, -4});
       },
       "query.shape[1]", "is -3"},
      {"SmallestAxis",
       [](v1::Tensor& t) {
         SetShape(t, {2, 3, -kMax - 1});
       },
       "query.shape[2]", "is -9223372036854775808"},
      {"LargestAxis",
       [](v1::Tensor& t) {
         SetShape(t, {kMax, 1, 1});
       },
       "query.shape", "any machine"},
      {"Axis2To62",
       [](v1::Tensor& t) {
         SetShape(t, {1, 1, std::int64_t{1} << 62});
       },
       "query.shape", "any machine"},
      {"MostElements",
       [](v1::Tensor& t) {
         SetShape(t, {1, 1, std::int64_t{1} << 59});
       },
       "query.data", "which takes 2305843009213693952 ("},
      {"OneElementTooMany",
       [](v1::Tensor& t) {
         SetShape(t, {1, 1, (std::int64_t{1} << 59) + 1});
       },
       "query.shape", "any machine"},
      {"ProductOverflowsToZero",
       [](v1::Tensor& t) {
         SetShape(t, {std::int64_t{1} << 32, std::int64_t{1} << 32, 1});
       },
       "query.shape", "any machine"},
      {"ProductOverflowsToTheRightSize",  // (2^62 + 1) * 4 * 6 = 24 modulo 2^64.
       [](v1::Tensor& t) {
         SetShape(t, {(std::int64_t{1} << 62) + 1, 4, 6});
       },
       "query.shape", "any machine"},
      {"ProductInBytesOverflowsToTheRightSize",  // 4 * (2^62 + 24) = 96 modulo 2^64.
       [](v1::Tensor& t) {
         SetShape(t, {1, 1, (std::int64_t{1} << 62) + 24});
       },
       "query.shape", "any machine"},
      {"OneByteTooFew", [](v1::Tensor& t) { t.mutable_data()->pop_back(); }, "query.data",
       "query.data has 95 bytes, but query.shape is [2, 3, 4], which takes 96 (24 elements of 4 bytes"},
      {"OneByteTooMany", [](v1::Tensor& t) { t.mutable_data()->push_back('x'); }, "query.data", "has 97 bytes"},
      {"Float64SentAsFloat32", [](v1::Tensor& t) { t.mutable_data()->resize(192); }, "query.data",
       "query.data has 192 bytes, but query.shape is [2, 3, 4], which takes 96 (24 elements of 4 bytes, "
       "DATA_TYPE_FLOAT32); it looks like FLOAT64"},
      {"Float16SentAsFloat32", [](v1::Tensor& t) { t.mutable_data()->resize(48); }, "query.data",
       "; it looks like FLOAT16 or BFLOAT16"},
      {"OneElementTooFew", [](v1::Tensor& t) { t.mutable_data()->resize(92); }, "query.data", "has 92 bytes"},
      {"NeitherDataNorValues", [](v1::Tensor& t) { t.clear_data(); }, "query",
       "has neither data nor values; send 96 bytes of data or 24 values for its shape [2, 3, 4]"},
      {"BothDataAndValues", [](v1::Tensor& t) { t.add_values(1); }, "query", "has both data (96 bytes) and values (1"},
      {"OneValueTooFew", [](v1::Tensor& t) { UseValues(t), t.mutable_values()->RemoveLast(); }, "query.values",
       "query.values has 23 numbers, but query.shape is [2, 3, 4], which takes 24"},
      {"OneValueTooMany", [](v1::Tensor& t) { UseValues(t), t.add_values(0); }, "query.values", "has 25"},
      {"Bool", [](v1::Tensor& t) { t.set_data_type(v1::DATA_TYPE_BOOL); }, "query.data_type",
       "query.data_type is DATA_TYPE_BOOL; query must be DATA_TYPE_FLOAT32"},
      {"Float64", [](v1::Tensor& t) { t.set_data_type(v1::DATA_TYPE_FLOAT64); }, "query.data_type",
       "DATA_TYPE_FLOAT64"},
      {"Float16", [](v1::Tensor& t) { t.set_data_type(v1::DATA_TYPE_FLOAT16); }, "query.data_type",
       "DATA_TYPE_FLOAT16"},
      {"BFloat16", [](v1::Tensor& t) { t.set_data_type(v1::DATA_TYPE_BFLOAT16); }, "query.data_type", "BFLOAT16"},
      {"UnknownType", [](v1::Tensor& t) { t.set_data_type(static_cast<v1::DataType>(7)); }, "query.data_type",
       "query.data_type is 7, which is not a known type; query must be DATA_TYPE_FLOAT32"},
      {"Int32", [](v1::Tensor& t) { t.set_data_type(v1::DATA_TYPE_INT32); }, "query.data_type",
       "query.data_type is DATA_TYPE_INT32; query must be one of DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT16, "
       "DATA_TYPE_BFLOAT16, DATA_TYPE_FLOAT64",
       &kNumberRule},
      {"Float64InEightBytes", [](v1::Tensor& t) { UseType(t, v1::DATA_TYPE_FLOAT64, 8); }, "", "", &kNumberRule},
      {"Float64InFourBytes", [](v1::Tensor& t) { t.set_data_type(v1::DATA_TYPE_FLOAT64); }, "query.data",
       "which takes 192 (24 elements of 8 bytes, DATA_TYPE_FLOAT64)", &kNumberRule},
      {"Float16InTwoBytes", [](v1::Tensor& t) { UseType(t, v1::DATA_TYPE_FLOAT16, 2); }, "", "", &kNumberRule},
      {"BFloat16InTwoBytes", [](v1::Tensor& t) { UseType(t, v1::DATA_TYPE_BFLOAT16, 2); }, "", "", &kNumberRule},
      {"BFloat16OneByteTooFew",
       [](v1::Tensor& t) { UseType(t, v1::DATA_TYPE_BFLOAT16, 2), t.mutable_data()->pop_back(); }, "query.data",
       "has 47 bytes", &kNumberRule},
      {"WidenedInFloat64", [](v1::Tensor& t) { UseType(t, v1::DATA_TYPE_FLOAT64, 8); }, "", "", &kWidenedRule},
      {"WidenedInFloat16", [](v1::Tensor& t) { UseType(t, v1::DATA_TYPE_FLOAT16, 2); }, "", "", &kWidenedRule},
      {"NegativeType", [](v1::Tensor& t) { t.set_data_type(static_cast<v1::DataType>(-1)); }, "query.data_type",
       "is -1"},
      {"BoolInBytes", [](v1::Tensor& t) { UseBool(t, 6); }, "", "", &kBoolRule},
      {"BoolByDefault", [](v1::Tensor& t) { UseBool(t, 6), t.clear_data_type(); }, "", "", &kBoolRule},
      {"BoolInFourBytes", [](v1::Tensor& t) { UseBool(t, 24); }, "query.data", "which takes 6", &kBoolRule},
      {"FloatWhereBoolIsTaken",
       [](v1::Tensor& t) {
         Resize(t, {2, 3});
       },
       "query.data_type", "query must be DATA_TYPE_BOOL", &kBoolRule},
      {"Empty", [](v1::Tensor& t) { t.Clear(); }, "query.shape", "is empty"},
  };
}

// A message whose field 1 is `tensor`, in slices.
grpc::ByteBuffer Wrap(const v1::Tensor& tensor, std::size_t slice_size) {
  v1::ScaledDotProductAttentionRequest request;
  *request.mutable_query() = tensor;
  return Sliced(request.SerializeAsString(), slice_size);
}

RawTensor Read(const WireBytes& bytes) {
  RawSdpaRequest request;
  EXPECT_TRUE(ReadSdpaRequest(bytes, request).ok());
  return request.query;
}

class TensorRules : public ::testing::TestWithParam<Case> {};

TEST_P(TensorRules, AcceptsOrBlamesTheField) {
  v1::Tensor tensor = RandomTensor({2, 3, 4}, 1);
  GetParam().change(tensor);
  const WireBytes bytes(Wrap(tensor, 0));
  absl::StatusOr<InputTensor> checked = CheckTensor(Read(bytes), *GetParam().rule);
  if (checked.ok()) {
    if (absl::Status status = CheckHaveContents({&*checked}); !status.ok()) checked = status;
  }
  if (GetParam().field.empty()) {
    EXPECT_TRUE(checked.ok()) << checked.status();
    return;
  }
  EXPECT_EQ(checked.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(checked.status()).field, GetParam().field);
  EXPECT_EQ(GetErrorDetails(checked.status()).reason, "INVALID_FIELD");
  EXPECT_THAT(std::string(checked.status().message()), HasSubstr(GetParam().message));
}

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Cases, TensorRules, ::testing::ValuesIn(Cases()), kCaseName);

TEST(CheckTensor, ContentsAreAskedForApart) {
  v1::Tensor tensor;
  tensor.add_shape(2);
  tensor.add_shape(3);
  tensor.add_shape(4);
  const WireBytes bytes(Wrap(tensor, 0));
  const absl::StatusOr<InputTensor> described = CheckTensor(Read(bytes), kFloatRule);
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_FALSE(described->has_contents() || described->from_values());
  EXPECT_EQ(described->num_bytes(), 96);
  InputTensor absent, lacking = *described;
  EXPECT_TRUE(CheckHaveContents({&absent}).ok());
  EXPECT_EQ(GetErrorDetails(CheckHaveContents({&absent, &lacking})).field, "query");
}

TEST(CheckTensor, AbsentIsNoError) {
  const absl::StatusOr<InputTensor> checked = CheckTensor(RawTensor(), kFloatRule);
  ASSERT_TRUE(checked.ok());
  EXPECT_FALSE(*checked);
  EXPECT_EQ(checked->floats(), nullptr);
}

TEST(CheckTensor, ShapeCanBeAskedFromEitherEnd) {
  const WireBytes bytes(Wrap(RandomTensor({2, 3, 4}, 1), 0));
  const InputTensor tensor = *CheckTensor(Read(bytes), kFloatRule);
  EXPECT_EQ(tensor.rank(), 3);
  EXPECT_EQ(tensor.axis(0), 2);
  EXPECT_EQ(tensor.axis(-1), 4);
  EXPECT_EQ(tensor.axis(-3), 2);
  EXPECT_EQ(tensor.num_elements(), 24);
  EXPECT_EQ(tensor.num_bytes(), 96);
  EXPECT_NE(tensor.floats(), nullptr) << "a placeholder, so that the core sees a tensor";
}

// NaN payloads, infinities, denormals and signed zeros: nothing may touch the bits.
TEST(GatherTensors, KeepsBitsAndAlignsThem) {
  std::vector<float> values;
  for (const std::uint32_t bits :
       {0x7FC00001u, 0xFF800000u, 0x80000000u, 0x00000001u, 0x7F7FFFFFu, 0xFFFFFFFFu, 0x7F800001u}) {
    values.push_back(std::bit_cast<float>(bits));
  }
  for (const bool as_values : {false, true}) {
    for (std::size_t slice_size = 0; slice_size < 40; ++slice_size) {
      v1::Tensor tensor = DataTensor({7}, values);
      if (as_values) UseValues(tensor);
      const WireBytes bytes(Wrap(tensor, slice_size));
      InputTensor one = *CheckTensor(Read(bytes), kFloatRule), absent, two = one;
      ASSERT_EQ(one.from_values(), as_values);
      ASSERT_EQ(GatheredBytes({&one, &absent, &two}), 128);
      const AlignedBuffer<std::byte> memory = GatherTensors(bytes, {&one, &absent, &two});
      EXPECT_EQ(absent.floats(), nullptr);
      ASSERT_NE(one.floats(), two.floats());
      for (const InputTensor* t : {&one, &two}) {
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t->floats()) % 64, 0u);
        EXPECT_EQ(std::memcmp(t->floats(), values.data(), 28), 0) << "slices of " << slice_size;
      }
    }
  }
}

// Whole, in pieces, as bytes and as numbers: 16-bit tensors are kept, or widened where the rule says so.
TEST(GatherTensors, SixteenBitsAreKeptOrWidened) {
  const std::vector<float> numbers = {1.0f, -2.5f, 0.0f, 65504.0f, 0x1p-24f};
  const std::string halves("\x00\x3c\x00\xc1\x00\x00\xff\x7b\x01\x00", 10);  // The same as binary16.
  for (const bool as_values : {false, true}) {
    for (std::size_t slice_size = 0; slice_size < 20; ++slice_size) {
      v1::Tensor tensor;
      tensor.set_data_type(v1::DATA_TYPE_FLOAT16);
      tensor.add_shape(5);
      if (as_values) {
        tensor.mutable_values()->Add(numbers.begin(), numbers.end());
      } else {
        tensor.set_data(halves);
      }
      const WireBytes bytes(Wrap(tensor, slice_size));
      InputTensor kept = *CheckTensor(Read(bytes), kNumberRule), widened = *CheckTensor(Read(bytes), kWidenedRule);
      ASSERT_EQ(kept.num_bytes(), 10);
      ASSERT_EQ(widened.type(), DataType::kFloat32);
      const AlignedBuffer<std::byte> memory = GatherTensors(bytes, {&kept, &widened});
      EXPECT_EQ(std::memcmp(kept.elements(), halves.data(), 10), 0) << slice_size;
      EXPECT_EQ(std::memcmp(widened.floats(), numbers.data(), 20), 0) << slice_size;
    }
  }
}

// Also where they are kept as FLOAT32: to nearest, ties to even.
TEST(GatherTensors, NumbersAreRoundedToTheSixteenBitsTheyAreSaidToHave) {
  const std::vector<float> numbers = {0.1f, 1 + 0x1p-11f, 1 + 0x1p-8f, 1 + 0x3p-8f, 70000.0f};
  const struct {
    v1::DataType type;
    std::vector<float> expected;
  } cases[] = {
      {v1::DATA_TYPE_FLOAT16, {0x1.998p-4f, 1, 1 + 0x1p-8f, 1 + 0x3p-8f, std::numeric_limits<float>::infinity()}},
      {v1::DATA_TYPE_BFLOAT16, {0x1.9ap-4f, 1, 1, 1 + 0x1p-6f, 70144.0f}}};
  for (const auto& c : cases) {
    v1::Tensor tensor;
    tensor.set_data_type(c.type);
    tensor.add_shape(5);
    tensor.mutable_values()->Add(numbers.begin(), numbers.end());
    const WireBytes bytes(Wrap(tensor, 3));
    InputTensor widened = *CheckTensor(Read(bytes), kWidenedRule);
    const AlignedBuffer<std::byte> memory = GatherTensors(bytes, {&widened});
    EXPECT_EQ(std::vector<float>(widened.floats(), widened.floats() + 5), c.expected);
  }
}

TEST(GatherTensors, Float64FromBytesAndFromNumbers) {
  const double exact[] = {0.1, -1e300};
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT64);
  tensor.add_shape(2);
  tensor.set_data(exact, sizeof(exact));
  const WireBytes bytes(Wrap(tensor, 3));
  InputTensor from_bytes = *CheckTensor(Read(bytes), kNumberRule);
  const AlignedBuffer<std::byte> memory = GatherTensors(bytes, {&from_bytes});
  EXPECT_EQ(std::memcmp(from_bytes.elements(), exact, sizeof(exact)), 0);
  tensor.clear_data();
  tensor.add_values(0.1f);
  tensor.add_values(-3.0f);
  const WireBytes value_bytes(Wrap(tensor, 3));
  InputTensor from_values = *CheckTensor(Read(value_bytes), kNumberRule);
  const AlignedBuffer<std::byte> value_memory = GatherTensors(value_bytes, {&from_values});
  const double expected[] = {double{0.1f}, -3.0};
  EXPECT_EQ(std::memcmp(from_values.elements(), expected, sizeof(expected)), 0);
}

TEST(GatherTensors, ABoolIsAByte) {
  v1::Tensor tensor = BoolTensor({2, 3}, std::string("\0\1\2\0\xFF\0", 6));
  const WireBytes bytes(Wrap(tensor, 4));
  InputTensor in_data = *CheckTensor(Read(bytes), kBoolRule);
  const AlignedBuffer<std::byte> memory = GatherTensors(bytes, {&in_data});
  tensor.clear_data();
  for (const float value : {0.0f, 1.0f, 0.5f, -0.0f, -7.0f, 0.0f}) tensor.add_values(value);
  const WireBytes value_bytes(Wrap(tensor, 4));
  InputTensor in_values = *CheckTensor(Read(value_bytes), kBoolRule);
  const AlignedBuffer<std::byte> value_memory = GatherTensors(value_bytes, {&in_values});
  for (int i = 0; i < 6; ++i) {
    const bool expected = i == 1 || i == 2 || i == 4;
    EXPECT_EQ(in_data.bools()[i] != 0, expected) << i;
    EXPECT_EQ(in_values.bools()[i] != 0, expected) << i;
  }
}

}  // namespace
}  // namespace attend::server
