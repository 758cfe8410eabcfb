// Attention weights as pictures see them: one matrix of queries by keys at a time, small enough to draw.
#ifndef ATTEND_CLIENT_DRAW_WEIGHT_MAP_H_
#define ATTEND_CLIENT_DRAW_WEIGHT_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/lib/tensor.h"

namespace attend::client {

// A matrix [rows, cols] of weights; each cell is the mean of the weights it stands for.
struct WeightMap {
  std::string title;             // `attention_weights[0, 3]`: which of a batch, which head.
  std::int64_t num_queries = 0;  // Of the whole matrix that the cells stand for.
  std::int64_t num_keys = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<float> cells;  // Row-major.

  float at(std::int64_t row, std::int64_t col) const { return cells[row * cols + col]; }
};

// The matrices of a tensor [.., T, S], at most `limit` of them. REQUIRES: at least two axes, none empty.
std::vector<WeightMap> SplitMaps(const Tensor& weights, std::int64_t limit);

// How many matrices there are.
std::int64_t CountMaps(const Tensor& weights);

// The same matrix in at most max_rows x max_cols cells, by averaging. REQUIRES: both at least 1.
WeightMap Pool(const WeightMap& map, std::int64_t max_rows, std::int64_t max_cols);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_WEIGHT_MAP_H_
