// Small checkpoints for tests: the bytes of .safetensors files with numbers that every type holds exactly.
#ifndef ATTEND_TESTS_SUPPORT_CHECKPOINT_BUILDER_H_
#define ATTEND_TESTS_SUPPORT_CHECKPOINT_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors/checkpoint.h"

namespace attend::testing {

// A dense matrix, or with one column a vector.
struct Matrix {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<float> numbers;

  float At(std::int64_t row, std::int64_t column) const {
    return numbers[static_cast<std::size_t>(row * columns + column)];
  }
};

// Multiples of 1/8 below 8: exact in every type, and hardly any two alike.
inline Matrix RandomMatrix(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  Matrix matrix{rows, columns, {}};
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    matrix.numbers.push_back(static_cast<float>(static_cast<int>(random() % 127) - 63) / 8);
  }
  return matrix;
}

inline Matrix Transposed(const Matrix& matrix) {
  Matrix transposed{matrix.columns, matrix.rows, {}};
  for (std::int64_t column = 0; column < matrix.columns; ++column) {
    for (std::int64_t row = 0; row < matrix.rows; ++row) transposed.numbers.push_back(matrix.At(row, column));
  }
  return transposed;
}

// Rows [begin, begin + count).
inline Matrix Rows(const Matrix& matrix, std::int64_t begin, std::int64_t count) {
  const auto start = matrix.numbers.begin() + begin * matrix.columns;
  return {count, matrix.columns, {start, start + count * matrix.columns}};
}

// One below the other.
inline Matrix Stacked(const std::vector<Matrix>& parts) {
  Matrix stacked = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    stacked.rows += parts[i].rows;
    stacked.numbers.insert(stacked.numbers.end(), parts[i].numbers.begin(), parts[i].numbers.end());
  }
  return stacked;
}

// The bytes of one number as `dtype` (F32, F64, F16, BF16). REQUIRES: a multiple of 1/8 below 8.
inline std::string NumberBytes(float number, std::string_view dtype) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &number, sizeof(bits));
  const auto bytes = [](const auto& value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  if (dtype == "F64") return bytes(static_cast<double>(number));
  if (dtype == "BF16") return bytes(static_cast<std::uint16_t>(bits >> 16));
  if (dtype != "F16") return bytes(number);
  if (number == 0) return std::string(2, '\0');
  const std::uint32_t exponent = (bits >> 23 & 0xff) - 127 + 15;
  return bytes(static_cast<std::uint16_t>((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3ff)));
}

class CheckpointBuilder {
 public:
  CheckpointBuilder& Add(const std::string& name, const std::vector<std::int64_t>& shape, const std::string& bytes,
                         const std::string& dtype) {
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + bytes.size()}}};
    data_ += bytes;
    return *this;
  }

  CheckpointBuilder& Add(const std::string& name, const Matrix& matrix, const std::string& dtype = "F32") {
    return Add(name, {matrix.rows, matrix.columns}, Bytes(matrix, dtype), dtype);
  }

  CheckpointBuilder& AddVector(const std::string& name, const Matrix& vector, const std::string& dtype = "F32") {
    return Add(name, {static_cast<std::int64_t>(vector.numbers.size())}, Bytes(vector, dtype), dtype);
  }

  CheckpointBuilder& Metadata(const std::string& key, const std::string& value) {
    header_["__metadata__"][key] = value;
    return *this;
  }

  // The file. With `offset` spaces behind a header that is a multiple of 8 bytes: the data is unaligned then.
  std::string Build(std::size_t offset = 0) const {
    std::string header = header_.dump();
    header.append((8 - header.size() % 8) % 8 + offset, ' ');
    const std::uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + data_;
  }

  formats::Checkpoint Checkpoint(std::size_t offset = 0) const {
    const auto bytes = std::make_shared<const std::string>(Build(offset));
    return *formats::Checkpoint::FromBytes(*bytes, bytes);
  }

 private:
  static std::string Bytes(const Matrix& matrix, const std::string& dtype) {
    std::string bytes;
    for (const float number : matrix.numbers) bytes += NumberBytes(number, dtype);
    return bytes;
  }

  nlohmann::ordered_json header_ = nlohmann::ordered_json::object();
  std::string data_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_CHECKPOINT_BUILDER_H_
