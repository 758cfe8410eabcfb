// From tensors of a checkpoint to the matrices of a layer: looked at, aligned, transposed and cut.
#ifndef ATTEND_FORMATS_LAYERS_WEIGHT_READER_H_
#define ATTEND_FORMATS_LAYERS_WEIGHT_READER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
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

// Whether copies may take so many bytes, all of one layer together. Errors: any.
using MayCopy = absl::FunctionRef<absl::Status(std::int64_t bytes)>;

// For those whose files are their own.
inline absl::Status CopyAnything(std::int64_t /*bytes*/) { return absl::OkStatus(); }

// Reads the weights of one layer, and keeps count of the tensors that it has read. Copies as little as it can: a tensor
// stays where it is unless its numbers are unaligned, lie across (transposed) or have to change places. Such copies are
// as large as the file, which may be a stranger's: `may_copy` is asked before each, and what it refuses with is the
// error of every function that copies. Thread-compatible.
class WeightReader {
 public:
  // Both must outlive the reader.
  explicit WeightReader(const Checkpoint& checkpoint, MayCopy may_copy = CopyAnything)
      : checkpoint_(checkpoint), may_copy_(may_copy) {}

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

  // The floats of a tensor. REQUIRES: it is there. Errors: INVALID_ARGUMENT when it is no vector, has more than `most`
  // numbers, or one that float32 does not hold exactly.
  absl::StatusOr<std::vector<float>> Floats(const std::string& name, std::int64_t most);

  // The rows of `linear` in which (r / block) % period is in [first, first + count), in their order, copied. With
  // [kv_heads, period, block] rows, that are blocks first .. first + count of each group. REQUIRES: the rows are a
  // multiple of period * block.
  absl::StatusOr<LinearWeights> CutGroups(const LinearWeights& linear, std::int64_t block, std::int64_t period,
                                          std::int64_t first, std::int64_t count);

  // The names of the tensors that have been read.
  const std::set<std::string>& read() const { return read_; }

  // What keeps alive everything that was returned. The reader may be destroyed after it.
  std::shared_ptr<const void> TakeMemory();

 private:
  // Errors: INVALID_ARGUMENT when its type is none that can be computed with.
  absl::StatusOr<WeightType> TypeOf(const std::string& name, const CheckpointTensor& tensor) const;
  // The type of a vector that is not empty.
  absl::StatusOr<WeightType> TypeOfVector(const std::string& name, const CheckpointTensor& vector) const;
  // Writes the numbers of a vector of `type` as floats.
  absl::Status Widen(const std::string& name, WeightType type, float* to);
  // Aligned for every type.
  absl::StatusOr<std::uint8_t*> Allocate(std::int64_t bytes);
  absl::StatusOr<const void*> Align(const CheckpointTensor& tensor, WeightType type);
  absl::StatusOr<const void*> Transpose(const CheckpointTensor& tensor, WeightType type);
  // Those of a matrix or vector `from`, whose rows have so many bytes, that CutGroups says.
  struct Groups {
    std::int64_t count;  // Of groups, each of `period` rows,
    std::int64_t period;
    std::int64_t first;  // of which these are taken.
    std::int64_t taken;
  };
  absl::StatusOr<const void*> Gather(const void* from, std::int64_t row_bytes, const Groups& groups);

  const Checkpoint& checkpoint_;
  const MayCopy may_copy_;
  std::set<std::string> read_;
  std::vector<std::unique_ptr<std::uint64_t[]>> copies_;
  std::int64_t copied_bytes_ = 0;
};

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_WEIGHT_READER_H_
