#include "tests/verify/top_weights_check.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <vector>

namespace attend::client {
namespace {

// As the service orders: NaN before all numbers.
bool IsLarger(double a, double b) { return std::isnan(a) ? !std::isnan(b) : a > b; }

// The largest `count` of each row, with 0 where the row has fewer.
std::vector<double> SortedRows(absl::Span<const double> reference, std::size_t rows, std::size_t count) {
  const std::size_t columns = reference.size() / rows;
  std::vector<double> sorted;
  for (std::size_t row = 0; row < rows; ++row) {
    std::vector<double> weights(reference.begin() + row * columns, reference.begin() + (row + 1) * columns);
    std::sort(weights.begin(), weights.end(), IsLarger);
    weights.resize(count);
    sorted.insert(sorted.end(), weights.begin(), weights.end());
  }
  return sorted;
}

// The weight of key number `key` in a row; infinite unless that is a key, and one that is not in `seen`.
double WeightOf(absl::Span<const double> row, double key, std::set<double>* seen) {
  if (key == -1) return 0;
  const bool valid = key >= 0 && key < static_cast<double>(row.size()) && seen->insert(key).second;
  return valid ? row[static_cast<std::size_t>(key)] : std::numeric_limits<double>::infinity();
}

std::size_t RowsOf(const Tensor& got) { return static_cast<std::size_t>(got.num_elements() / got.shape().back()); }

}  // namespace

Comparison CompareTopWeights(const std::string& against, const Tensor& got, absl::Span<const double> reference,
                             double bound) {
  const auto count = static_cast<std::size_t>(got.shape().back());
  return Compare("top_attention_weights", against, got, SortedRows(reference, RowsOf(got), count), bound);
}

Comparison CompareTopIndices(const std::string& against, const Tensor& got, absl::Span<const double> reference,
                             double bound) {
  const std::size_t rows = RowsOf(got), columns = reference.size() / rows;
  const auto count = static_cast<std::size_t>(got.shape().back());
  const std::vector<double> keys = got.ToDoubles();
  std::vector<double> weights;
  for (std::size_t row = 0; row < rows; ++row) {
    std::set<double> seen;
    for (std::size_t i = row * count; i < (row + 1) * count; ++i) {
      weights.push_back(WeightOf(reference.subspan(row * columns, columns), keys[i], &seen));
    }
  }
  std::string bytes(reinterpret_cast<const char*>(weights.data()), weights.size() * sizeof(double));
  const Tensor listed = Tensor::Create(ElementType::kFloat64, got.shape(), std::move(bytes)).value();
  return Compare("top_attention_indices", against, listed, SortedRows(reference, rows, count), 2 * bound);
}

}  // namespace attend::client
