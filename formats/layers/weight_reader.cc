#include "formats/layers/weight_reader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace attend::formats {
namespace {

std::string ShapeOf(const CheckpointTensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]");
}

absl::Status WrongShape(const std::string& name, const CheckpointTensor& tensor, const std::string& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", name, "' has the shape ", ShapeOf(tensor), "; ", expected, " is expected"));
}

const void* Advance(const void* data, std::int64_t bytes) { return static_cast<const std::uint8_t*>(data) + bytes; }

// Turns [rows, columns] numbers into [columns, rows].
template <typename T>
void TransposeNumbers(const void* from, std::int64_t rows, std::int64_t columns, void* to) {
  constexpr std::int64_t kTile = 16;  // So that lines of both sides are used whole.
  const auto* const source = static_cast<const std::uint8_t*>(from);
  auto* const target = static_cast<T*>(to);
  for (std::int64_t row = 0; row < rows; row += kTile) {
    for (std::int64_t column = 0; column < columns; ++column) {
      for (std::int64_t r = row; r < std::min(rows, row + kTile); ++r) {
        // May be unaligned.
        std::memcpy(target + column * rows + r, source + (r * columns + column) * sizeof(T), sizeof(T));
      }
    }
  }
}

}  // namespace

LinearWeights CutRows(const LinearWeights& linear, std::int64_t begin, std::int64_t count) {
  LinearWeights cut = linear;
  cut.weight = Advance(linear.weight, begin * linear.in_features * SizeOf(linear.weight_type));
  if (linear.bias != nullptr) cut.bias = Advance(linear.bias, begin * SizeOf(linear.bias_type));
  cut.out_features = count;
  return cut;
}

absl::StatusOr<WeightType> WeightReader::TypeOf(const std::string& name, const CheckpointTensor& tensor) const {
  if (const std::optional<WeightType> type = WeightTypeOf(tensor.dtype)) return *type;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", name, "' has the type ", tensor.dtype, "; weights must be F32, F16, BF16 or F64"));
}

std::uint8_t* WeightReader::Allocate(std::int64_t bytes) {
  const auto words = static_cast<std::size_t>(bytes + 7) / 8;
  copies_.push_back(std::make_unique<std::uint64_t[]>(words));
  return reinterpret_cast<std::uint8_t*>(copies_.back().get());
}

const void* WeightReader::Align(const CheckpointTensor& tensor, WeightType type) {
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(SizeOf(type)) == 0) {
    return tensor.data;
  }
  return std::memcpy(Allocate(tensor.bytes), tensor.data, static_cast<std::size_t>(tensor.bytes));
}

const void* WeightReader::Transpose(const CheckpointTensor& tensor, WeightType type) {
  std::uint8_t* const to = Allocate(tensor.bytes);
  switch (SizeOf(type)) {
    case 2: TransposeNumbers<std::uint16_t>(tensor.data, tensor.shape[0], tensor.shape[1], to); break;
    case 4: TransposeNumbers<std::uint32_t>(tensor.data, tensor.shape[0], tensor.shape[1], to); break;
    default: TransposeNumbers<std::uint64_t>(tensor.data, tensor.shape[0], tensor.shape[1], to); break;
  }
  return to;
}

absl::StatusOr<LinearWeights> WeightReader::Linear(const std::string& weight, const std::string& bias,
                                                   bool transposed) {
  const CheckpointTensor& matrix = *checkpoint_.Find(weight);
  if (matrix.shape.size() != 2 || matrix.bytes == 0) {
    return WrongShape(weight, matrix, transposed ? "[in_features, out_features]" : "[out_features, in_features]");
  }
  absl::StatusOr<WeightType> type = TypeOf(weight, matrix);
  if (!type.ok()) return type.status();
  LinearWeights linear;
  linear.weight_type = *type;
  linear.weight = transposed ? Transpose(matrix, *type) : Align(matrix, *type);
  linear.out_features = matrix.shape[transposed ? 1 : 0];
  linear.in_features = matrix.shape[transposed ? 0 : 1];
  read_.insert(weight);
  if (absl::Status status = AddBias(bias, linear); !status.ok()) return status;
  return linear;
}

absl::Status WeightReader::AddBias(const std::string& bias, LinearWeights& linear) {
  const CheckpointTensor* const vector = checkpoint_.Find(bias);
  if (vector == nullptr || linear.bias != nullptr) return absl::OkStatus();
  if (vector->shape != std::vector<std::int64_t>{linear.out_features}) {
    return WrongShape(bias, *vector, absl::StrCat("[", linear.out_features, "], as the projection has outputs,"));
  }
  const absl::StatusOr<WeightType> type = TypeOf(bias, *vector);
  if (!type.ok()) return type.status();
  linear.bias_type = *type;
  linear.bias = Align(*vector, *type);
  read_.insert(bias);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> WeightReader::Floats(const std::string& name) {
  const CheckpointTensor& vector = *checkpoint_.Find(name);
  if (vector.shape.size() != 1 || vector.bytes == 0) return WrongShape(name, vector, "one axis that is not empty");
  const absl::StatusOr<WeightType> type = TypeOf(name, vector);
  if (!type.ok()) return type.status();
  std::vector<float> floats;
  for (std::int64_t i = 0; i < vector.shape[0]; ++i) {
    if (!IsFloatAt(vector.data, *type, i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", name, "' has the type F64, and float32 does not hold its number ", i,
                       " exactly; norms and sinks are float32. Store the tensor as F32 to have it rounded"));
    }
    floats.push_back(FloatAt(vector.data, *type, i));
  }
  read_.insert(name);
  return floats;
}

absl::StatusOr<NormWeights> WeightReader::Norm(const std::string& weight, const std::string& bias) {
  NormWeights norm;
  if (checkpoint_.Find(weight) == nullptr) return norm;
  for (const std::string& name : {weight, bias}) {
    if (checkpoint_.Find(name) == nullptr) continue;
    const absl::StatusOr<std::vector<float>> floats = Floats(name);
    if (!floats.ok()) return floats.status();
    const std::int64_t size = static_cast<std::int64_t>(floats->size());
    if (norm.weight != nullptr && size != norm.size) {
      return WrongShape(name, *checkpoint_.Find(name), absl::StrCat("[", norm.size, "], the shape of '", weight, "',"));
    }
    auto* const copy = reinterpret_cast<float*>(Allocate(size * 4));
    std::copy(floats->begin(), floats->end(), copy);
    norm.size = size;
    (name == weight ? norm.weight : norm.bias) = copy;
  }
  return norm;
}

LinearWeights WeightReader::CutGroups(const LinearWeights& linear, std::int64_t block, std::int64_t period,
                                      std::int64_t first, std::int64_t count) {
  const std::int64_t groups = linear.out_features / (period * block);
  LinearWeights cut = linear;
  cut.out_features = groups * count * block;
  const auto gather = [&](const void* from, std::int64_t row_bytes) {
    std::uint8_t* const to = Allocate(cut.out_features * row_bytes);
    const std::int64_t piece = count * block * row_bytes;
    for (std::int64_t group = 0; group < groups; ++group) {
      std::memcpy(to + group * piece, Advance(from, (group * period + first) * block * row_bytes),
                  static_cast<std::size_t>(piece));
    }
    return to;
  };
  cut.weight = gather(linear.weight, linear.in_features * SizeOf(linear.weight_type));
  if (linear.bias != nullptr) cut.bias = gather(linear.bias, SizeOf(linear.bias_type));
  return cut;
}

std::shared_ptr<const void> WeightReader::TakeMemory() {
  struct Memory {
    std::shared_ptr<const void> checkpoint;
    std::vector<std::unique_ptr<std::uint64_t[]>> copies;
  };
  return std::make_shared<const Memory>(Memory{checkpoint_.memory(), std::move(copies_)});
}

}  // namespace attend::formats
