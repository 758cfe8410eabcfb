// Attention weights as drawings see them: one matrix of queries by keys at a time, small enough to draw, and how it is
// to be drawn.
#ifndef ATTEND_CLIENT_DRAW_WEIGHT_MAP_H_
#define ATTEND_CLIENT_DRAW_WEIGHT_MAP_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

struct DrawStyle {
  std::vector<std::string> query_labels;  // One per query, or none: their numbers.
  std::vector<std::string> key_labels;
  bool log_scale = false;
  std::string font = "sans-serif";  // Of a picture; a family as fontconfig knows it.
};

// The lines of a text file, one label each. Errors: NOT_FOUND; INVALID_ARGUMENT for a file of more than 4 MiB and for a
// line that is not UTF-8 or holds a control character.
absl::StatusOr<std::vector<std::string>> LoadLabels(const std::string& path);

// Fits the labels to a map: those of the queries name the keys too where `style` has none for keys. Errors:
// INVALID_ARGUMENT when there are more or fewer labels than tokens.
absl::Status FitLabels(std::int64_t queries, std::int64_t keys, DrawStyle* style);

// The first `width` characters, the last of them `…` where there are more. REQUIRES: UTF-8.
std::string Shortened(const std::string& text, std::size_t width);

// The number of characters. REQUIRES: UTF-8.
std::size_t CountCharacters(const std::string& text);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_WEIGHT_MAP_H_
