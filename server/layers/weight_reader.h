// From tensors of a checkpoint to the matrices of a layer: looked at, aligned, transposed and cut.
#ifndef ATTEND_SERVER_LAYERS_WEIGHT_READER_H_
#define ATTEND_SERVER_LAYERS_WEIGHT_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/attention/attend_problem.h"
#include "core/tensor/aligned_buffer.h"
#include "formats/checkpoint.h"

namespace attend::server {

// Rows [begin, begin + count) of `linear`, weight and bias; views the same memory. REQUIRES: they are there; count > 0.
LinearView CutRows(const LinearView& linear, std::int64_t begin, std::int64_t count);

// Reads the weights of one layer. Copies as little as it can: a tensor stays where it is unless its numbers are
// unaligned, lie across (transposed) or have to change places. Thread-compatible.
class WeightReader {
 public:
  // `checkpoint` must outlive the reader.
  explicit WeightReader(const formats::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // The matrix `weight` [out_features, in_features], or with `transposed` [in_features, out_features] as GPT-2's Conv1D
  // has it, and the vector `bias` [out_features] if there is one. REQUIRES: `weight` is there. Errors: INVALID_ARGUMENT
  // naming the tensor, for a shape that is none of a projection and a type that cannot be computed with.
  absl::StatusOr<LinearView> Linear(const std::string& weight, const std::string& bias, bool transposed);

  // The vector `weight` and, if there is one, `bias`, widened to floats; absent when there is no `weight`. Kind and
  // epsilon are left open. Errors: INVALID_ARGUMENT naming the tensor.
  absl::StatusOr<NormView> Norm(const std::string& weight, const std::string& bias);

  // The floats of a vector. Errors: INVALID_ARGUMENT when it is none.
  absl::StatusOr<std::vector<float>> Floats(const std::string& name) const;

  // The rows of `linear` in which (r / block) % period is in [first, first + count), in their order, copied. With
  // [kv_heads, period, block] rows, that are blocks first .. first + count of each group. REQUIRES: the rows are a
  // multiple of period * block.
  LinearView CutGroups(const LinearView& linear, std::int64_t block, std::int64_t period, std::int64_t first,
                       std::int64_t count);

  // What keeps alive everything that was returned. The reader may be destroyed after it.
  std::shared_ptr<const void> TakeMemory();

 private:
  // Errors: INVALID_ARGUMENT when its type is none that the core computes with.
  absl::StatusOr<DataType> TypeOf(const std::string& name, const formats::CheckpointTensor& tensor) const;
  std::uint8_t* Allocate(std::int64_t bytes);
  const void* Align(const formats::CheckpointTensor& tensor, DataType type);
  const void* Transpose(const formats::CheckpointTensor& tensor, DataType type);

  const formats::Checkpoint& checkpoint_;
  std::vector<AlignedBuffer<std::uint8_t>> copies_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_WEIGHT_READER_H_
