// From tensors of a checkpoint to the matrices of a layer: looked at, aligned, transposed and cut.
#ifndef ATTEND_FORMATS_LAYERS_WEIGHT_READER_H_
#define ATTEND_FORMATS_LAYERS_WEIGHT_READER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "formats/layers/weight_type.h"
#include "formats/safetensors/checkpoint.h"

namespace attend::formats {

// An affine map y = x . weight^T + bias, as torch.nn.Linear lays it out. Views memory that somebody else keeps.
struct LinearWeights {
  const void* weight = nullptr;  // [out_features, in_features], dense and aligned; null means "absent".
  const void* bias = nullptr;    // [out_features], or null for none.
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  WeightType weight_type = WeightType::kFloat32;
  WeightType bias_type = WeightType::kFloat32;
};

// The weight and bias of a norm, widened to floats.
struct NormWeights {
  const float* weight = nullptr;  // Null means "absent".
  const float* bias = nullptr;    // Null for none.
  std::int64_t size = 0;
};

// Rows [begin, begin + count) of `linear`, weight and bias; views the same memory. REQUIRES: they are there; count > 0.
LinearWeights CutRows(const LinearWeights& linear, std::int64_t begin, std::int64_t count);

// Reads the weights of one layer, and keeps count of the tensors that it has read. Copies as little as it can: a tensor
// stays where it is unless its numbers are unaligned, lie across (transposed) or have to change places.
// Thread-compatible.
class WeightReader {
 public:
  // `checkpoint` must outlive the reader.
  explicit WeightReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // The matrix `weight` [out_features, in_features], or with `transposed` [in_features, out_features] as GPT-2's Conv1D
  // has it, and the vector `bias` [out_features] if there is one. REQUIRES: `weight` is there. Errors: INVALID_ARGUMENT
  // naming the tensor, for a shape that is none of a projection and a type that cannot be computed with.
  absl::StatusOr<LinearWeights> Linear(const std::string& weight, const std::string& bias, bool transposed);

  // Gives `linear` the vector `bias` if the checkpoint has one of that name and `linear` none. Errors: INVALID_ARGUMENT
  // naming the tensor.
  absl::Status AddBias(const std::string& bias, LinearWeights& linear);

  // The vector `weight` and, if there is one, `bias`, widened to floats; absent when there is no `weight`. Errors:
  // INVALID_ARGUMENT naming the tensor.
  absl::StatusOr<NormWeights> Norm(const std::string& weight, const std::string& bias);

  // The floats of a tensor. REQUIRES: it is there. Errors: INVALID_ARGUMENT when it is no vector, or has a number that
  // float32 does not hold exactly.
  absl::StatusOr<std::vector<float>> Floats(const std::string& name);

  // The rows of `linear` in which (r / block) % period is in [first, first + count), in their order, copied. With
  // [kv_heads, period, block] rows, that are blocks first .. first + count of each group. REQUIRES: the rows are a
  // multiple of period * block.
  LinearWeights CutGroups(const LinearWeights& linear, std::int64_t block, std::int64_t period, std::int64_t first,
                          std::int64_t count);

  // The names of the tensors that have been read.
  const std::set<std::string>& read() const { return read_; }

  // What keeps alive everything that was returned. The reader may be destroyed after it.
  std::shared_ptr<const void> TakeMemory();

 private:
  // Errors: INVALID_ARGUMENT when its type is none that can be computed with.
  absl::StatusOr<WeightType> TypeOf(const std::string& name, const CheckpointTensor& tensor) const;
  // Aligned for every type.
  std::uint8_t* Allocate(std::int64_t bytes);
  const void* Align(const CheckpointTensor& tensor, WeightType type);
  const void* Transpose(const CheckpointTensor& tensor, WeightType type);

  const Checkpoint& checkpoint_;
  std::set<std::string> read_;
  std::vector<std::unique_ptr<std::uint64_t[]>> copies_;
};

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_WEIGHT_READER_H_
