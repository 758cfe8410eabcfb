// Tensors of a request: first claims that are checked, then memory that is computed on.
//
//   absl::StatusOr<InputTensor> query = CheckTensor(raw.query, kQueryRule);          // Nothing is allocated.
//   ... every other rule, with query->floats() as a placeholder ...
//   AlignedBuffer<std::byte> memory = GatherTensors(bytes, {&*query, ...});          // Now query->floats() is real.
//
// Tensor rules live here, attention rules in the core's problems: those look at shapes and never at elements, so that
// they can be asked before a single element is in place.
#ifndef ATTEND_SERVER_REQUESTS_TENSOR_CODEC_H_
#define ATTEND_SERVER_REQUESTS_TENSOR_CODEC_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "attend/v1/tensor.pb.h"
#include "core/kernels/kernel_table.h"
#include "core/tensor/aligned_buffer.h"
#include "core/tensor/data_type.h"
#include "server/wire/enums.h"
#include "server/wire/request_reader.h"
#include "server/wire/wire_format.h"

namespace attend::server {

// Which types a tensor field accepts, and which it has in memory. FLOAT32 is the default of all but kBool.
enum class TypeRule : std::uint8_t {
  kNumbers,  // FLOAT32, FLOAT64, FLOAT16 and BFLOAT16, kept as they are.
  kWidened,  // The same; 16-bit numbers are widened to FLOAT32.
  kFloat32,  // FLOAT32 alone.
  kBool,     // BOOL alone.
};

// What one tensor field of a request demands. All are constants.
struct TensorRule {
  const char* field;  // As errors name it: `layer.query_projection.weight`.
  FieldPath path;     // Where it is in the request.
  TypeRule types = TypeRule::kNumbers;
  std::array<std::int64_t, 3> ranks{};  // The numbers of axes accepted; 0 for none.
  const char* shapes;                   // What they mean, for people: `[T, D] or [B, T, D]`.
};

// A tensor whose type, shape and number of bytes are right, if it has contents. A default one is absent.
class InputTensor {
 public:
  explicit operator bool() const { return rule_ != nullptr; }

  int rank() const { return rank_; }
  // The length of an axis. A negative one counts from the end, as in NumPy. REQUIRES: -rank() <= axis < rank().
  std::int64_t axis(int axis) const { return shape_[static_cast<std::size_t>(axis < 0 ? axis + rank_ : axis)]; }
  std::int64_t num_elements() const { return num_elements_; }
  DataType type() const { return type_; }  // In memory.
  std::int64_t num_bytes() const { return num_elements_ * ElementSize(type_); }
  // Whether the elements came as `values` instead of `data`.
  bool from_values() const { return from_values_; }
  // Whether they came at all; only what is estimated may lack them.
  bool has_contents() const { return from_values_ || !data_.empty(); }

  // The elements, row-major, aligned to 64 bytes. Before GatherTensors an address that is not null and must not be
  // read from; null when absent. A boolean is true when its byte is not 0. REQUIRES: type() is that type.
  const void* elements() const { return memory_; }
  const float* floats() const { return static_cast<const float*>(memory_); }
  const std::uint8_t* bools() const { return static_cast<const std::uint8_t*>(memory_); }

 private:
  friend absl::StatusOr<InputTensor> CheckTensor(const RawTensor& raw, const TensorRule& rule);
  friend absl::Status CheckHaveContents(absl::Span<InputTensor* const> tensors);
  friend AlignedBuffer<std::byte> GatherTensors(const WireBytes& bytes, absl::Span<InputTensor* const> tensors);

  // Copies what came as `data`, in the type that it has in memory.
  void CopyData(const WireBytes& bytes, const ConvertKernels& convert, std::byte* to) const;

  const TensorRule* rule_ = nullptr;
  DataType wire_type_ = DataType::kFloat32;
  DataType type_ = DataType::kFloat32;
  int rank_ = 0;
  std::array<std::int64_t, kMaxRank> shape_{};
  std::int64_t num_elements_ = 0;
  bool from_values_ = false;
  ByteRange data_;
  const void* memory_ = nullptr;
};

// Tensors of one request. More than 16 take memory of their own.
using InputTensors = absl::InlinedVector<InputTensor*, 16>;

// Appends `tensor` unless it is absent.
inline void AppendPresent(InputTensor& tensor, InputTensors& tensors) {
  if (tensor) tensors.push_back(&tensor);
}

// Checks one tensor, which may lack its contents; absent when `raw` is. Errors: INVALID_ARGUMENT with the path of the
// type, the shape, the axis, the data or the values. `rule` must outlive the result. Pure; may be called concurrently.
absl::StatusOr<InputTensor> CheckTensor(const RawTensor& raw, const TensorRule& rule);

// The same, into `tensor`.
absl::Status CheckTensorInto(const RawTensor& raw, const TensorRule& rule, InputTensor& tensor);

// Errors: INVALID_ARGUMENT naming the first of `tensors`, which may be absent, that is there without its elements.
absl::Status CheckHaveContents(absl::Span<InputTensor* const> tensors);

// The memory that GatherTensors takes; no more than twice the request's own bytes plus 63 for each tensor. In floating
// point because tensors without contents may be of any size together.
double GatheredBytes(absl::Span<InputTensor* const> tensors);

// Copies the elements of all tensors that are not absent into one piece of memory, converts them where they came as
// `values` or in another type, and points the tensors at it. Tensors may be moved afterwards. REQUIRES: all come from
// `bytes` and have contents.
AlignedBuffer<std::byte> GatherTensors(const WireBytes& bytes, absl::Span<InputTensor* const> tensors);

// `[2, 3, 4]`.
std::string ShapeText(absl::Span<const std::int64_t> shape);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_TENSOR_CODEC_H_
