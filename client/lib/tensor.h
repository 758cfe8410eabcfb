// A dense tensor that owns its elements: what a client computes with, reads from files and sends.
//
//   Tensor embeddings = Tensor::FromFloats({5, 64}, values);
//   std::move(embeddings).MoveTo(request.mutable_embeddings());               // no copy
//   absl::StatusOr<Tensor> output = Tensor::FromProto(std::move(*response.mutable_output()));  // no copy
//
// The bytes live in a std::string because protobuf's `bytes` fields do: moving into and out of a message costs
// nothing.
#ifndef ATTEND_CLIENT_LIB_TENSOR_H_
#define ATTEND_CLIENT_LIB_TENSOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "attend/v1/tensor.pb.h"
#include "client/lib/element_type.h"

namespace attend::client {

// The number of elements of `shape` (1 without axes). Errors: INVALID_ARGUMENT when an axis is negative or when
// the elements, `element_size` bytes each, do not fit in 63 bits of bytes.
absl::StatusOr<std::int64_t> CountElements(absl::Span<const std::int64_t> shape, std::int64_t element_size);

// `[5, 64]`.
std::string ShapeString(absl::Span<const std::int64_t> shape);

// Row-major (the last axis varies fastest), little-endian, without padding. bytes().size() always equals
// num_elements() * ElementSize(type()).
//
// A value: copyable and movable; a moved-from tensor may only be assigned to or destroyed. Thread-compatible.
class Tensor {
 public:
  // A float32 tensor of shape [0].
  Tensor() : shape_{0} {}

  // Takes `bytes` over. Errors: INVALID_ARGUMENT when their number is not what `type` and `shape` imply.
  static absl::StatusOr<Tensor> Create(ElementType type, std::vector<std::int64_t> shape, std::string bytes);

  // Copies `values` into a float32 tensor. REQUIRES: product(shape) == values.size().
  static Tensor FromFloats(std::vector<std::int64_t> shape, absl::Span<const float> values);

  // Takes the tensor of a message over, without a copy when it travels as `data`. Errors: INVALID_ARGUMENT when the
  // message's shape and contents disagree, its type is unknown or does not hold its `values`.
  static absl::StatusOr<Tensor> FromProto(v1::Tensor&& proto);

  // Moves this tensor into a message, without a copy of its elements. Errors: INVALID_ARGUMENT for an element type
  // that the service takes no tensors of (the integers).
  absl::Status MoveTo(v1::Tensor* proto) &&;

  // The same values as `type`, each rounded once, to nearest and ties to even; what is beyond its range becomes
  // infinite. A tensor that has the type already is passed through without a copy. REQUIRES: IsFloatingPoint(type).
  Tensor ToFloat(ElementType type) &&;
  Tensor ToFloat32() && { return std::move(*this).ToFloat(ElementType::kFloat32); }

  // The first finite element, in row-major order, that ToFloat(type) would make infinite. REQUIRES: as ToFloat.
  std::optional<std::int64_t> FirstBeyond(ElementType type) const;

  // The values as int64. Errors: INVALID_ARGUMENT when the type is not an integer or a value does not fit.
  absl::StatusOr<std::vector<std::int64_t>> ToInt64() const;

  // The values as float64, whatever the type.
  std::vector<double> ToDoubles() const;

  ElementType type() const { return type_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t num_elements() const { return static_cast<std::int64_t>(bytes_.size()) / ElementSize(type_); }
  const std::string& bytes() const { return bytes_; }

  // The elements. REQUIRES: type() == ElementType::kFloat32.
  absl::Span<const float> floats() const;

  // `float32 [5, 64]`, for messages.
  std::string Describe() const;

 private:
  Tensor(ElementType type, std::vector<std::int64_t> shape, std::string bytes)
      : type_(type), shape_(std::move(shape)), bytes_(std::move(bytes)) {}

  ElementType type_ = ElementType::kFloat32;
  std::vector<std::int64_t> shape_;
  std::string bytes_;
};

// A tensor and what it is called.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_TENSOR_H_
