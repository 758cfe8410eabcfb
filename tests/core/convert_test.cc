// FLOAT16 and BFLOAT16 to float and back, for every instruction set, against Eigen and exhaustively where that is
// possible.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/kernels/kernel_table.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

class ConvertTest : public ::testing::TestWithParam<InstructionSet> {
 protected:
  const ConvertKernels& convert() const { return ConvertKernelsFor(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(, ConvertTest, ::testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& set) { return std::string(InstructionSetName(set.param)); });

constexpr DataType kHalves[] = {DataType::kFloat16, DataType::kBFloat16};

std::vector<std::uint16_t> AllHalves() {
  std::vector<std::uint16_t> all(1 << 16);
  std::iota(all.begin(), all.end(), std::uint16_t{0});
  return all;
}

float ByEigen(DataType type, std::uint16_t half) {
  return type == DataType::kFloat16 ? static_cast<float>(std::bit_cast<Eigen::half>(half))
                                    : static_cast<float>(std::bit_cast<Eigen::bfloat16>(half));
}

std::uint16_t ByEigen(DataType type, float number) {
  return type == DataType::kFloat16 ? std::bit_cast<std::uint16_t>(static_cast<Eigen::half>(number))
                                    : std::bit_cast<std::uint16_t>(static_cast<Eigen::bfloat16>(number));
}

TEST_P(ConvertTest, EveryHalfWidensToItsNumber) {
  const std::vector<std::uint16_t> halves = AllHalves();
  std::vector<float> numbers(halves.size());
  for (DataType type : kHalves) {
    convert().widen(type, halves.data(), static_cast<std::int64_t>(halves.size()), numbers.data());
    for (std::size_t i = 0; i < halves.size(); ++i) {
      const float expected = ByEigen(type, halves[i]);
      const bool same = std::isnan(expected)
                            ? std::isnan(numbers[i])
                            : std::bit_cast<std::uint32_t>(expected) == std::bit_cast<std::uint32_t>(numbers[i]);
      ASSERT_TRUE(same) << DataTypeName(type) << " " << i << " became " << numbers[i] << ", expected " << expected;
    }
  }
}

TEST_P(ConvertTest, WidensWhatIsTheSecondHalfOfWhereItGoes) {
  for (std::size_t count : {1u, 2u, 7u, 8u, 15u, 16u, 17u, 33u, 1000u}) {
    for (DataType type : kHalves) {
      std::vector<float> expected(count), numbers(count);
      std::vector<std::uint16_t> halves(count);
      for (std::size_t i = 0; i < count; ++i) halves[i] = static_cast<std::uint16_t>(0x3c00 + i);
      convert().widen(type, halves.data(), static_cast<std::int64_t>(count), expected.data());
      auto* second_half = reinterpret_cast<std::byte*>(numbers.data()) + 2 * count;
      std::memcpy(second_half, halves.data(), 2 * count);
      convert().widen(type, second_half, static_cast<std::int64_t>(count), numbers.data());
      EXPECT_EQ(numbers, expected) << count;
    }
  }
}

TEST_P(ConvertTest, EveryHalfComesBack) {
  const std::vector<std::uint16_t> halves = AllHalves();
  std::vector<float> numbers(halves.size());
  std::vector<std::uint16_t> back(halves.size());
  for (DataType type : kHalves) {
    convert().widen(type, halves.data(), static_cast<std::int64_t>(halves.size()), numbers.data());
    convert().narrow(type, numbers.data(), static_cast<std::int64_t>(halves.size()), back.data());
    for (std::size_t i = 0; i < halves.size(); ++i) {
      if (std::isnan(numbers[i])) {
        ASSERT_TRUE(std::isnan(ByEigen(type, back[i]))) << DataTypeName(type) << " " << i;
      } else {
        ASSERT_EQ(back[i], halves[i]) << DataTypeName(type);
      }
    }
  }
}

// Numbers on, just below and just above every boundary between two halves, and random ones of all magnitudes.
std::vector<float> Boundaries(DataType type) {
  std::vector<float> numbers;
  for (std::uint32_t half = 0; half < 0x7f80; ++half) {
    const float low = ByEigen(type, static_cast<std::uint16_t>(half));
    const float high = ByEigen(type, static_cast<std::uint16_t>(half + 1));
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const float middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
    for (float x : {middle, std::nextafter(middle, low), std::nextafter(middle, high)}) {
      numbers.push_back(x);
      numbers.push_back(-x);
    }
  }
  testing::QuickRandom random(1);
  for (int i = 0; i < 300000; ++i) numbers.push_back(std::bit_cast<float>(random.Bits()));
  for (float x : {65504.0f, 65519.0f, 65520.0f, 65536.0f, 3.4e38f, 5.9e-8f, 2.9e-8f, 3e-8f, 0.0f, INFINITY, NAN}) {
    numbers.push_back(x);
    numbers.push_back(-x);
  }
  return numbers;
}

TEST_P(ConvertTest, NumbersAreRoundedToNearestAndTiesToEven) {
  for (DataType type : kHalves) {
    const std::vector<float> numbers = Boundaries(type);
    std::vector<std::uint16_t> halves(numbers.size());
    convert().narrow(type, numbers.data(), static_cast<std::int64_t>(numbers.size()), halves.data());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (std::isnan(numbers[i])) {
        ASSERT_TRUE(std::isnan(ByEigen(type, halves[i]))) << DataTypeName(type) << " at " << i;
      } else {
        ASSERT_EQ(halves[i], ByEigen(type, numbers[i])) << DataTypeName(type) << " of " << numbers[i];
      }
    }
  }
}

TEST_P(ConvertTest, NothingBeyondTheLastNumberIsReadOrWritten) {
  for (DataType type : {DataType::kFloat16, DataType::kBFloat16, DataType::kFloat32}) {
    for (std::size_t count = 0; count < 40; ++count) {
      const std::vector<std::byte> from(count * static_cast<std::size_t>(ElementSize(type)));  // ASan guards its end.
      std::vector<float> wide(count + 1, 7.0f);
      convert().widen(type, from.data(), static_cast<std::int64_t>(count), wide.data());
      EXPECT_EQ(wide[count], 7.0f);
      std::vector<std::byte> to((count + 1) * static_cast<std::size_t>(ElementSize(type)), std::byte{7});
      convert().narrow(type, wide.data(), static_cast<std::int64_t>(count), to.data());
      EXPECT_EQ(to.back(), std::byte{7});
    }
  }
}

}  // namespace
}  // namespace attend
