// Where the command gets its tensors from: files named on the command line.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_TENSOR_SOURCE_H_
#define ATTEND_CLIENT_CLI_REQUESTS_TENSOR_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/lib/tensor.h"

namespace attend::client {

// A tensor as named by the user: `x.npy`, `x.csv`, `-` for a .npy array on standard input, `file.safetensors:name`,
// `file.npz:name`, or one of these files alone when it holds exactly one tensor.
struct TensorSource {
  std::string path;
  std::string name;  // Within a .safetensors or .npz file; may be empty.

  static TensorSource Parse(const std::string& text);

  bool is_safetensors() const;
};

// Errors: those of the readers in client/io; INVALID_ARGUMENT for any other file. Each `-` reads the next array.
absl::StatusOr<Tensor> LoadTensor(const std::string& source);

// To be asked after the last LoadTensor: waits for the end of standard input, if a tensor was read from it. Errors:
// INVALID_ARGUMENT when it does not end there.
absl::Status CheckStandardInputIsUsedUp();

// `element [0, 2]`: element number `index` of a tensor of this shape, in row-major order.
std::string ElementName(std::int64_t index, const std::vector<std::int64_t>& shape);

// `tensor`, which `source` names, as `type`. Errors: INVALID_ARGUMENT, with the element or the line and column, when a
// finite number is beyond the type's range and would become infinite.
absl::StatusOr<Tensor> Convert(Tensor tensor, ElementType type, const std::string& source);

// A tensor of numbers. Errors: as LoadTensor; INVALID_ARGUMENT for booleans, which as a bias would be added as 1 and 0.
absl::StatusOr<Tensor> LoadNumbers(const std::string& source);

// The same as a type that the service computes with: integers become float32, as does float64 where it is not allowed,
// and the numbers of a .csv file, which have no type. A note on stderr says when that loses precision. Errors: as
// LoadNumbers and Convert.
absl::StatusOr<Tensor> LoadFloats(const std::string& source, bool allow_float64);

// A mask is BOOL on the wire; files often hold it as bytes. Errors: INVALID_ARGUMENT for other types.
absl::StatusOr<Tensor> LoadMask(const std::string& source);

// `1,2,3` itself, or the elements of the one-axis tensor that `text` names, at least one. Errors: as LoadTensor;
// INVALID_ARGUMENT for other tensors.
absl::StatusOr<std::vector<std::int64_t>> LoadIntegerList(const std::string& text);

// The same with numbers that are not integers, as LoadFloats; written ones are float64 where that is allowed.
absl::StatusOr<Tensor> LoadFloatList(const std::string& text, bool allow_float64);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_TENSOR_SOURCE_H_
