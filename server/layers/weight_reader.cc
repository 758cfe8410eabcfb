#include "server/layers/weight_reader.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/kernels/convert_kernels.h"
#include "core/kernels/instruction_set.h"

namespace attend::server {
namespace {

struct TypeName {
  std::string_view dtype;
  DataType type;
};
constexpr TypeName kTypes[] = {{"F32", DataType::kFloat32},
                               {"F16", DataType::kFloat16},
                               {"BF16", DataType::kBFloat16},
                               {"F64", DataType::kFloat64}};

std::string ShapeOf(const formats::CheckpointTensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]");
}

absl::Status WrongShape(const std::string& name, const formats::CheckpointTensor& tensor, const std::string& expected) {
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

LinearView CutRows(const LinearView& linear, std::int64_t begin, std::int64_t count) {
  LinearView cut = linear;
  cut.weight = Advance(linear.weight, begin * linear.in_features * ElementSize(linear.weight_type));
  if (linear.bias != nullptr) cut.bias = Advance(linear.bias, begin * ElementSize(linear.bias_type));
  cut.out_features = count;
  return cut;
}

absl::StatusOr<DataType> WeightReader::TypeOf(const std::string& name, const formats::CheckpointTensor& tensor) const {
  const auto* const found = std::find_if(std::begin(kTypes), std::end(kTypes),
                                         [&](const TypeName& type) { return type.dtype == tensor.dtype; });
  if (found != std::end(kTypes)) return found->type;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", name, "' has the type ", tensor.dtype, "; weights must be F32, F16, BF16 or F64"));
}

std::uint8_t* WeightReader::Allocate(std::int64_t bytes) {
  copies_.emplace_back(bytes);
  return copies_.back().data();
}

const void* WeightReader::Align(const formats::CheckpointTensor& tensor, DataType type) {
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(ElementSize(type)) == 0) {
    return tensor.data;
  }
  return std::memcpy(Allocate(tensor.bytes), tensor.data, static_cast<std::size_t>(tensor.bytes));
}

const void* WeightReader::Transpose(const formats::CheckpointTensor& tensor, DataType type) {
  std::uint8_t* const to = Allocate(tensor.bytes);
  switch (ElementSize(type)) {
    case 2: TransposeNumbers<std::uint16_t>(tensor.data, tensor.shape[0], tensor.shape[1], to); break;
    case 4: TransposeNumbers<std::uint32_t>(tensor.data, tensor.shape[0], tensor.shape[1], to); break;
    default: TransposeNumbers<std::uint64_t>(tensor.data, tensor.shape[0], tensor.shape[1], to); break;
  }
  return to;
}

absl::StatusOr<LinearView> WeightReader::Linear(const std::string& weight, const std::string& bias, bool transposed) {
  const formats::CheckpointTensor& matrix = *checkpoint_.Find(weight);
  if (matrix.shape.size() != 2 || matrix.bytes == 0) {
    return WrongShape(weight, matrix, transposed ? "[in_features, out_features]" : "[out_features, in_features]");
  }
  absl::StatusOr<DataType> type = TypeOf(weight, matrix);
  if (!type.ok()) return type.status();
  LinearView linear;
  linear.weight_type = *type;
  linear.weight = transposed ? Transpose(matrix, *type) : Align(matrix, *type);
  linear.out_features = matrix.shape[transposed ? 1 : 0];
  linear.in_features = matrix.shape[transposed ? 0 : 1];
  const formats::CheckpointTensor* const vector = checkpoint_.Find(bias);
  if (vector == nullptr) return linear;
  if (vector->shape != std::vector<std::int64_t>{linear.out_features}) {
    return WrongShape(bias, *vector, absl::StrCat("[", linear.out_features, "], as '", weight, "' has outputs,"));
  }
  type = TypeOf(bias, *vector);
  if (!type.ok()) return type.status();
  linear.bias_type = *type;
  linear.bias = Align(*vector, *type);
  return linear;
}

absl::StatusOr<std::vector<float>> WeightReader::Floats(const std::string& name) const {
  const formats::CheckpointTensor& vector = *checkpoint_.Find(name);
  if (vector.shape.size() != 1 || vector.bytes == 0) return WrongShape(name, vector, "one axis that is not empty");
  const absl::StatusOr<DataType> type = TypeOf(name, vector);
  if (!type.ok()) return type.status();
  // An owned copy is aligned.
  const std::string bytes(static_cast<const char*>(vector.data), static_cast<std::size_t>(vector.bytes));
  std::vector<float> floats(static_cast<std::size_t>(vector.shape[0]));
  if (*type == DataType::kFloat64) {
    for (std::size_t i = 0; i < floats.size(); ++i) {
      double number = 0;
      std::memcpy(&number, bytes.data() + i * sizeof(number), sizeof(number));
      floats[i] = static_cast<float>(number);
    }
  } else {
    ConvertKernelsFor(BestInstructionSet()).widen(*type, bytes.data(), vector.shape[0], floats.data());
  }
  return floats;
}

absl::StatusOr<NormView> WeightReader::Norm(const std::string& weight, const std::string& bias) {
  NormView norm;
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

LinearView WeightReader::CutGroups(const LinearView& linear, std::int64_t block, std::int64_t period,
                                   std::int64_t first, std::int64_t count) {
  const std::int64_t groups = linear.out_features / (period * block);
  LinearView cut = linear;
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
  cut.weight = gather(linear.weight, linear.in_features * ElementSize(linear.weight_type));
  if (linear.bias != nullptr) cut.bias = gather(linear.bias, ElementSize(linear.bias_type));
  return cut;
}

std::shared_ptr<const void> WeightReader::TakeMemory() {
  struct Memory {
    std::shared_ptr<const void> checkpoint;
    std::vector<AlignedBuffer<std::uint8_t>> copies;
  };
  return std::make_shared<const Memory>(Memory{checkpoint_.memory(), std::move(copies_)});
}

}  // namespace attend::server
