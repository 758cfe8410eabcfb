#include "client/draw/weight_map.h"

#include <google/protobuf/stubs/common.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/io/stream.h"

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

constexpr std::int64_t kMaxLabelBytes = std::int64_t{4} << 20;

bool StartsCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

bool IsDrawable(const std::string& label) {
  for (const char byte : label) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(byte))) return false;
  }
  return google::protobuf::internal::IsStructurallyValidUTF8(label.data(), static_cast<int>(label.size()));
}

absl::Status CheckCount(const char* flag, std::size_t labels, std::int64_t tokens, const char* what) {
  if (labels == 0 || static_cast<std::int64_t>(labels) == tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " has ", labels, " lines, but there are ", tokens, " ", what, "; give one line per token"));
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

absl::StatusOr<std::vector<std::string>> LoadLabels(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxLabelBytes);
  if (!text.ok()) return text.status();
  std::vector<std::string> labels = absl::StrSplit(absl::StripSuffix(*text, "\n"), '\n');
  for (std::size_t i = 0; i < labels.size(); ++i) {
    labels[i] = std::string(absl::StripSuffix(labels[i], "\r"));
    if (IsDrawable(labels[i])) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": line ", i + 1, " is not UTF-8 text, or holds a control character"));
  }
  return labels;
}

absl::Status FitLabels(std::int64_t queries, std::int64_t keys, DrawStyle* style) {
  absl::Status status = CheckCount("--labels", style->query_labels.size(), queries, "queries");
  if (!status.ok()) return status;
  if (style->key_labels.empty() && !style->query_labels.empty()) {
    if (queries != keys) {
      return absl::InvalidArgumentError(absl::StrCat("--labels names the ", queries, " queries; name the ", keys,
                                                     " keys with --key-labels FILE as well"));
    }
    style->key_labels = style->query_labels;
  }
  return CheckCount("--key-labels", style->key_labels.size(), keys, "keys");
}

std::string Shortened(const std::string& text, std::size_t width) {
  if (CountCharacters(text) <= width) return text;
  std::size_t end = 0;
  for (std::size_t characters = 0; end < text.size(); ++end) {
    if (StartsCharacter(text[end]) && ++characters == width) break;
  }
  return text.substr(0, end) + "…";
}

std::size_t CountCharacters(const std::string& text) {
  std::size_t count = 0;
  for (const char byte : text) count += StartsCharacter(byte) ? 1 : 0;
  return count;
}

}  // namespace attend::client
