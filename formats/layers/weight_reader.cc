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

absl::StatusOr<std::uint8_t*> WeightReader::Allocate(std::int64_t bytes) {
  const std::int64_t words = (bytes + 7) / 8;
  if (absl::Status may = may_copy_(copied_bytes_ + 8 * words); !may.ok()) return may;
  copied_bytes_ += 8 * words;
  copies_.push_back(std::make_unique<std::uint64_t[]>(static_cast<std::size_t>(words)));
  return reinterpret_cast<std::uint8_t*>(copies_.back().get());
}

absl::StatusOr<const void*> WeightReader::Align(const CheckpointTensor& tensor, WeightType type) {
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(SizeOf(type)) == 0) {
    return tensor.data;
  }
  const absl::StatusOr<std::uint8_t*> to = Allocate(tensor.bytes);
  if (!to.ok()) return to.status();
  return std::memcpy(*to, tensor.data, static_cast<std::size_t>(tensor.bytes));
}

absl::StatusOr<const void*> WeightReader::Transpose(const CheckpointTensor& tensor, WeightType type) {
  const absl::StatusOr<std::uint8_t*> to = Allocate(tensor.bytes);
  if (!to.ok()) return to.status();
  switch (SizeOf(type)) {
    case 2: TransposeNumbers<std::uint16_t>(tensor.data, tensor.shape[0], tensor.shape[1], *to); break;
    case 4: TransposeNumbers<std::uint32_t>(tensor.data, tensor.shape[0], tensor.shape[1], *to); break;
    default: TransposeNumbers<std::uint64_t>(tensor.data, tensor.shape[0], tensor.shape[1], *to); break;
  }
  return *to;
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
  const absl::StatusOr<const void*> numbers = transposed ? Transpose(matrix, *type) : Align(matrix, *type);
  if (!numbers.ok()) return numbers.status();
  linear.weight = *numbers;
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
  const absl::StatusOr<const void*> numbers = Align(*vector, *type);
  if (!numbers.ok()) return numbers.status();
  linear.bias = *numbers;
  read_.insert(bias);
  return absl::OkStatus();
}

absl::StatusOr<WeightType> WeightReader::TypeOfVector(const std::string& name, const CheckpointTensor& vector) const {
  if (vector.shape.size() != 1 || vector.bytes == 0) return WrongShape(name, vector, "one axis that is not empty");
  return TypeOf(name, vector);
}

absl::Status WeightReader::Widen(const std::string& name, WeightType type, float* to) {
  const CheckpointTensor& vector = *checkpoint_.Find(name);
  for (std::int64_t i = 0; i < vector.shape[0]; ++i) {
    if (!IsFloatAt(vector.data, type, i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", name, "' has the type F64, and float32 does not hold its number ", i,
                       " exactly; norms and sinks are float32. Store the tensor as F32 to have it rounded"));
    }
    to[i] = FloatAt(vector.data, type, i);
  }
  read_.insert(name);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> WeightReader::Floats(const std::string& name, std::int64_t most) {
  const CheckpointTensor& vector = *checkpoint_.Find(name);
  const absl::StatusOr<WeightType> type = TypeOfVector(name, vector);
  if (!type.ok()) return type.status();
  if (vector.shape[0] > most) return WrongShape(name, vector, absl::StrCat("one axis of at most ", most, " numbers"));
  std::vector<float> floats(static_cast<std::size_t>(vector.shape[0]));
  if (absl::Status status = Widen(name, *type, floats.data()); !status.ok()) return status;
  return floats;
}

absl::StatusOr<NormWeights> WeightReader::Norm(const std::string& weight, const std::string& bias) {
  NormWeights norm;
  if (checkpoint_.Find(weight) == nullptr) return norm;
  for (const std::string& name : {weight, bias}) {
    const CheckpointTensor* const vector = checkpoint_.Find(name);
    if (vector == nullptr) continue;
    const absl::StatusOr<WeightType> type = TypeOfVector(name, *vector);
    if (!type.ok()) return type.status();
    const std::int64_t size = vector->shape[0];
    if (norm.weight != nullptr && size != norm.size) {
      return WrongShape(name, *vector, absl::StrCat("[", norm.size, "], the shape of '", weight, "',"));
    }
    const absl::StatusOr<std::uint8_t*> memory = Allocate(size * 4);
    if (!memory.ok()) return memory.status();
    auto* const copy = reinterpret_cast<float*>(*memory);
    if (absl::Status status = Widen(name, *type, copy); !status.ok()) return status;
    norm.size = size;
    (name == weight ? norm.weight : norm.bias) = copy;
  }
  return norm;
}

absl::StatusOr<const void*> WeightReader::Gather(const void* from, std::int64_t row_bytes, const Groups& groups) {
  const std::int64_t piece = groups.taken * row_bytes;
  const absl::StatusOr<std::uint8_t*> to = Allocate(groups.count * piece);
  if (!to.ok()) return to.status();
  for (std::int64_t group = 0; group < groups.count; ++group) {
    std::memcpy(*to + group * piece, Advance(from, (group * groups.period + groups.first) * row_bytes),
                static_cast<std::size_t>(piece));
  }
  return *to;
}

absl::StatusOr<LinearWeights> WeightReader::CutGroups(const LinearWeights& linear, std::int64_t block,
                                                      std::int64_t period, std::int64_t first, std::int64_t count) {
  const Groups groups{linear.out_features / (period * block), period * block, first * block, count * block};
  LinearWeights cut = linear;
  cut.out_features = groups.count * groups.taken;
  const absl::StatusOr<const void*> weight =
      Gather(linear.weight, linear.in_features * SizeOf(linear.weight_type), groups);
  if (!weight.ok()) return weight.status();
  cut.weight = *weight;
  if (linear.bias == nullptr) return cut;
  const absl::StatusOr<const void*> bias = Gather(linear.bias, SizeOf(linear.bias_type), groups);
  if (!bias.ok()) return bias.status();
  cut.bias = *bias;
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
