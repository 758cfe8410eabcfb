// A response message whose tensors are computed in place: the memory that kernels write is the memory that is sent.
//
// Every attend.v1 response is a sequence of Tensor fields and a receipt, and packed floats and `data` are the same
// bytes on the wire. So a response is laid out before it is computed: in one piece of memory, for each tensor its
// serialized header and right behind it, 64-byte aligned, room for its elements. What is sent are references to these
// ranges; the bytes are exactly those that protobuf's serializer would produce.
//
//   [ gap | header 1 | elements 1 | gap | header 2 | elements 2 | last field ]
//           \______ slice 1 ______/       \____________ slice 2 ____________/
//
// `values` are floats whatever the type: elements of another one are computed in a second piece of memory, converted at
// the end, and given back before anything is sent. That is the easy path, not the fast one.
//
// Thread-compatible.
#ifndef ATTEND_SERVER_WIRE_RESPONSE_BUFFER_H_
#define ATTEND_SERVER_WIRE_RESPONSE_BUFFER_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "attend/v1/tensor.pb.h"
#include "core/tensor/aligned_buffer.h"

namespace attend::server {

// Which field of Tensor holds the elements.
enum class TensorForm : std::uint8_t { kData, kValues };

// The shape of a tensor of a response.
using Axes = absl::InlinedVector<std::int64_t, 4>;

// A small field as it is sent, its tag included; with room for a receipt.
using SerializedField = absl::InlinedVector<char, 64>;

class ResponseBuffer {
 public:
  // `last_field` ends the message, behind all tensors; may be empty. REQUIRES: its field number is higher than theirs.
  explicit ResponseBuffer(TensorForm form, SerializedField last_field = {})
      : form_(form), last_field_(std::move(last_field)) {}

  // Adds a tensor of `type` as field `field_number` of the response. REQUIRES: Allocate was not called; field numbers
  // are added in ascending order; every axis is at least 1 and the tensor's size IsTensorSize.
  void AddTensor(int field_number, v1::DataType type, absl::Span<const std::int64_t> shape);

  // The size of the serialized message, and of the memory that Allocate takes. Exact below 2^53; in floating point
  // because the sum over tensors may be more than an int64 holds.
  double SerializedBytes() const;
  double MemoryBytes() const;

  // Takes the memory and writes the headers. REQUIRES: called once, with at least one tensor; MemoryBytes()
  // is an amount that may be taken.
  void Allocate();

  // The elements of a tensor in its type, uninitialised, row-major, 64-byte aligned; null when it was not added or not
  // allocated.
  void* Elements(int field_number) const;
  // The same. REQUIRES: its type is FLOAT32.
  float* Floats(int field_number) const { return static_cast<float*>(Elements(field_number)); }

  // The serialized message, which owns its memory from now on: its own size and at most two cache lines for each
  // tensor. REQUIRES: Allocate was called, every element is written; called once.
  grpc::ByteBuffer Take();

 private:
  struct Part {
    int field_number;
    v1::DataType type;
    std::int64_t num_elements;
    std::int64_t wire_bytes;  // Of the elements as they are sent,
    std::int64_t own_bytes;   // and in their type, where that is something else; 0 otherwise.
    std::string header;
    std::int64_t position = 0;      // In `memory_`, of the elements as they are sent.
    std::int64_t own_position = 0;  // In `own_memory_`, of those in their type, where there are any.
  };

  // Most responses have one tensor: then neither it nor its slice takes memory of its own.
  static constexpr std::size_t kInlinedParts = 1;

  // Where kernels write the elements of `part`.
  void* Computed(const Part& part) const;
  void ConvertToValues(const Part& part);

  // Of the elements of `part` and what follows them directly.
  std::int64_t SentBytes(const Part& part) const;

  TensorForm form_;
  SerializedField last_field_;
  absl::InlinedVector<Part, kInlinedParts> parts_;
  AlignedBuffer<std::byte> memory_;      // What is sent.
  AlignedBuffer<std::byte> own_memory_;  // Elements in a type that is not sent.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_RESPONSE_BUFFER_H_
