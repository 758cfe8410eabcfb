#include "client/draw/weight_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace attend::client {
namespace {

// The leading indices of matrix number `map`, as in `[0, 3]`; empty when there is only one matrix by shape.
std::string IndexOf(std::int64_t map, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size() - 2);
  for (std::size_t axis = index.size(); axis-- > 0;) {
    index[axis] = map % shape[axis];
    map /= shape[axis];
  }
  return index.empty() ? "" : ShapeString(index);
}

}  // namespace

std::int64_t CountMaps(const Tensor& weights) {
  const std::vector<std::int64_t>& shape = weights.shape();
  return weights.num_elements() / (shape[shape.size() - 2] * shape.back());
}

std::vector<WeightMap> SplitMaps(const Tensor& weights, std::int64_t limit) {
  const std::vector<std::int64_t>& shape = weights.shape();
  const std::int64_t rows = shape[shape.size() - 2];
  const std::int64_t cols = shape.back();
  std::vector<WeightMap> maps;
  for (std::int64_t map = 0; map < std::min(limit, CountMaps(weights)); ++map) {
    const std::size_t size = rows * cols * ElementSize(weights.type());
    const Tensor matrix =
        Tensor::Create(weights.type(), {rows, cols}, weights.bytes().substr(map * size, size)).value().ToFloat32();
    maps.push_back({absl::StrCat("attention_weights", IndexOf(map, shape)), rows, cols, rows, cols,
                    std::vector<float>(matrix.floats().begin(), matrix.floats().end())});
  }
  return maps;
}

WeightMap Pool(const WeightMap& map, std::int64_t max_rows, std::int64_t max_cols) {
  WeightMap pooled = map;
  pooled.rows = std::min(map.rows, max_rows);
  pooled.cols = std::min(map.cols, max_cols);
  if (pooled.rows == map.rows && pooled.cols == map.cols) return pooled;
  pooled.cells.assign(pooled.rows * pooled.cols, 0);
  for (std::int64_t row = 0; row < pooled.rows; ++row) {
    const std::int64_t row_begin = row * map.rows / pooled.rows;
    const std::int64_t row_end = (row + 1) * map.rows / pooled.rows;
    for (std::int64_t col = 0; col < pooled.cols; ++col) {
      const std::int64_t col_begin = col * map.cols / pooled.cols;
      const std::int64_t col_end = (col + 1) * map.cols / pooled.cols;
      double sum = 0;
      for (std::int64_t r = row_begin; r < row_end; ++r) {
        for (std::int64_t c = col_begin; c < col_end; ++c) sum += map.at(r, c);
      }
      pooled.cells[row * pooled.cols + col] =
          static_cast<float>(sum / static_cast<double>((row_end - row_begin) * (col_end - col_begin)));
    }
  }
  return pooled;
}

}  // namespace attend::client
