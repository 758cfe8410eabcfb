#include "core/layer/rotary.h"

#include <cmath>
#include <cstddef>

namespace attend {
namespace {

// 1 / (2 pi) in units of 2^-256, the least significant limb first.
constexpr std::uint64_t kInverseTwoPi[] = {0x7f9458eaf7aef158, 0x36d8a5664f10e410, 0x7f09d5f47d4d3770,
                                           0x28be60db9391054a};
constexpr int kFractionBits = 256;
constexpr double kTwoPi = 6.283185307179586;

// Frequency / (2 pi) modulo 1, in units of 2^-128; rounded down in magnitude. The idea of Payne & Hanek (1983): the
// number's 53 bits times as many bits of 1 / (2 pi) as it takes, of which what makes whole turns is dropped.
absl::uint128 TurnsOf(double frequency) {
  int exponent = 0;
  const double fraction = std::frexp(std::abs(frequency), &exponent);
  const auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, 53));
  std::uint64_t product[8] = {};
  absl::uint128 sum = 0;
  for (int i = 0; i < 4; ++i) {
    sum = absl::uint128(mantissa) * kInverseTwoPi[i] + absl::Uint128High64(sum);
    product[i] = absl::Uint128Low64(sum);
  }
  product[4] = absl::Uint128High64(sum);
  // In units of 2^(exponent - 53 - 256); below that, and up to kMaxRotaryFrequency, the shift is at least 116.
  const int shift = kFractionBits - 128 + 53 - exponent;
  if (shift >= 64 * 5) return 0;
  const int limb = shift / 64;
  const auto low = absl::MakeUint128(product[limb + 1], product[limb]) >> (shift % 64);
  const auto high = absl::MakeUint128(product[limb + 2], product[limb + 1]) >> (shift % 64);
  const absl::uint128 turns = absl::MakeUint128(absl::Uint128Low64(high), absl::Uint128Low64(low));
  return frequency < 0 ? absl::uint128(0) - turns : turns;
}

// Taylor's polynomials on [-pi/4, pi/4], where what they leave out is below 5e-17.
double SineNearZero(double x) {
  const double z = x * x;
  double p = -1.0 / 1307674368000;
  p = p * z + 1.0 / 6227020800;
  p = p * z - 1.0 / 39916800;
  p = p * z + 1.0 / 362880;
  p = p * z - 1.0 / 5040;
  p = p * z + 1.0 / 120;
  p = p * z - 1.0 / 6;
  return x + x * (z * p);
}

double CosineNearZero(double x) {
  const double z = x * x;
  double p = 1.0 / 20922789888000;
  p = p * z - 1.0 / 87178291200;
  p = p * z + 1.0 / 479001600;
  p = p * z - 1.0 / 3628800;
  p = p * z + 1.0 / 40320;
  p = p * z - 1.0 / 720;
  p = p * z + 1.0 / 24;
  p = p * z - 1.0 / 2;
  return 1 + z * p;
}

// Of an angle in units of 2^-64 turns.
SineAndCosine SineAndCosineOf(std::uint64_t turn) {
  const std::uint64_t quarter = (turn + (std::uint64_t{1} << 61)) >> 62;  // The nearest, 0 to 3.
  const auto rest = static_cast<std::int64_t>(turn - (quarter << 62));    // Within an eighth of a turn.
  const double x = static_cast<double>(rest) * (kTwoPi * 0x1p-64);
  const double sine = SineNearZero(x), cosine = CosineNearZero(x);
  switch (quarter) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

}  // namespace

RotaryAngles::RotaryAngles(absl::Span<const double> frequencies) {
  turns_.reserve(frequencies.size());
  for (const double frequency : frequencies) turns_.push_back(TurnsOf(frequency));
}

SineAndCosine RotaryAngles::At(std::int64_t position, std::int64_t i) const {
  // Modulo 2^128, which drops whole turns and handles negative positions.
  const absl::uint128 turns = turns_[static_cast<std::size_t>(i)] * absl::uint128(position);
  return SineAndCosineOf(absl::Uint128High64(turns));
}

template <typename T>
RotaryApplier<T>::RotaryApplier(const RotaryAngles& angles, bool interleaved, double factor)
    : angles_(angles),
      interleaved_(interleaved),
      factor_(factor),
      sines_(static_cast<std::size_t>(angles.size())),
      cosines_(static_cast<std::size_t>(angles.size())) {}

template <typename T>
void RotaryApplier<T>::Apply(std::int64_t position, std::int64_t heads, std::int64_t head_dim, T* rows) {
  const std::int64_t pairs = angles_.size();
  if (!has_position_ || position != position_) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      const SineAndCosine angle = angles_.At(position, i);
      sines_[static_cast<std::size_t>(i)] = static_cast<T>(angle.sine * factor_);
      cosines_[static_cast<std::size_t>(i)] = static_cast<T>(angle.cosine * factor_);
    }
    has_position_ = true;
    position_ = position;
  }
  const T* sines = sines_.data();
  const T* cosines = cosines_.data();
  const std::int64_t step = interleaved_ ? 2 : 1, distance = interleaved_ ? 1 : pairs;
  for (T* row = rows; row != rows + heads * head_dim; row += head_dim) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      const T x = row[i * step], y = row[i * step + distance];
      row[i * step] = x * cosines[i] - y * sines[i];
      row[i * step + distance] = y * cosines[i] + x * sines[i];
    }
  }
}

template class RotaryApplier<float>;
template class RotaryApplier<double>;

}  // namespace attend
