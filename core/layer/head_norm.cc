#include "core/layer/head_norm.h"

#include <cmath>

namespace attend {
namespace {

constexpr std::int64_t kPartialSums = 8;

// The sum of term(i) for i in [0, size).
template <typename Term>
double Sum(std::int64_t size, const Term& term) {
  double x[kPartialSums] = {};
  std::int64_t i = 0;
  for (; i + kPartialSums <= size; i += kPartialSums) {
    for (std::int64_t j = 0; j < kPartialSums; ++j) x[j] += term(i + j);
  }
  for (std::int64_t j = 0; i + j < size; ++j) x[j] += term(i + j);
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

template <typename T>
void NormalizeRow(const NormView& norm, T* row) {
  const auto size = static_cast<double>(norm.size);
  double mean = 0;
  if (norm.kind == NormKind::kLayer) {
    mean = Sum(norm.size, [row](std::int64_t i) { return static_cast<double>(row[i]); }) / size;
  }
  const double squares = Sum(norm.size, [row, mean](std::int64_t i) {
    const double x = static_cast<double>(row[i]) - mean;
    return x * x;
  });
  const double factor = 1 / std::sqrt(squares / size + static_cast<double>(norm.epsilon));
  const double added = norm.adds_one ? 1 : 0;
  for (std::int64_t i = 0; i < norm.size; ++i) {
    const double x = (static_cast<double>(row[i]) - mean) * factor * (added + static_cast<double>(norm.weight[i]));
    row[i] = static_cast<T>(norm.bias == nullptr ? x : x + static_cast<double>(norm.bias[i]));
  }
}

}  // namespace

template <typename T>
void Normalize(const NormView& norm, std::int64_t rows, T* data) {
  for (std::int64_t r = 0; r < rows; ++r) NormalizeRow(norm, data + r * norm.size);
}

template void Normalize(const NormView&, std::int64_t, float*);
template void Normalize(const NormView&, std::int64_t, double*);

}  // namespace attend
