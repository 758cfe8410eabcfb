#include "server/wire/response_buffer.h"

#include <cstring>
#include <utility>

#include "attend/v1/tensor.pb.h"
#include "core/base/round.h"
#include "core/kernels/kernel_table.h"
#include "server/wire/wire_format.h"

namespace attend::server {
namespace {

// Everything of the field that comes before its elements. REQUIRES: the type is not the default, and there is a shape.
std::string TensorHeader(int field_number, v1::DataType type, absl::Span<const std::int64_t> shape, TensorForm form,
                         std::int64_t num_bytes) {
  std::string axes;
  for (const std::int64_t axis : shape) AppendVarint(static_cast<std::uint64_t>(axis), axes);
  std::string inner;
  AppendVarintTag(v1::Tensor::kDataTypeFieldNumber, inner);
  AppendVarint(static_cast<std::uint64_t>(type), inner);
  AppendLengthPrefix(v1::Tensor::kShapeFieldNumber, static_cast<std::int64_t>(axes.size()), inner);
  inner += axes;
  const int elements_field = form == TensorForm::kData ? v1::Tensor::kDataFieldNumber : v1::Tensor::kValuesFieldNumber;
  AppendLengthPrefix(elements_field, num_bytes, inner);
  std::string header;
  AppendLengthPrefix(field_number, static_cast<std::int64_t>(inner.size()) + num_bytes, header);
  return header += inner;
}

std::int64_t ElementBytes(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT64: return 8;
    case v1::DATA_TYPE_FLOAT16:
    case v1::DATA_TYPE_BFLOAT16: return 2;
    default: return 4;
  }
}

template <typename T>
void ToFloats(const void* from, std::int64_t count, float* to) {
  const T* numbers = static_cast<const T*>(from);
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(numbers[i]);
}

void DeleteMemory(void* memory) { delete static_cast<AlignedBuffer<std::byte>*>(memory); }

}  // namespace

void ResponseBuffer::AddTensor(int field_number, v1::DataType type, absl::Span<const std::int64_t> shape) {
  std::int64_t elements = 1;
  for (const std::int64_t axis : shape) elements *= axis;
  const bool converted = form_ == TensorForm::kValues && type != v1::DATA_TYPE_FLOAT32;
  const std::int64_t own_bytes = elements * ElementBytes(type);
  const std::int64_t wire_bytes = converted ? elements * static_cast<std::int64_t>(sizeof(float)) : own_bytes;
  parts_.push_back({field_number, type, elements, wire_bytes, converted ? own_bytes : 0,
                    TensorHeader(field_number, type, shape, form_, wire_bytes)});
}

std::int64_t ResponseBuffer::SentBytes(const Part& part) const {
  return part.wire_bytes + (&part == &parts_.back() ? static_cast<std::int64_t>(last_field_.size()) : 0);
}

double ResponseBuffer::SerializedBytes() const {
  auto total = static_cast<double>(last_field_.size());
  for (const Part& part : parts_)
    total += static_cast<double>(part.header.size()) + static_cast<double>(part.wire_bytes);
  return total;
}

double ResponseBuffer::MemoryBytes() const {
  double total = 0;
  for (const Part& part : parts_) {
    total += static_cast<double>(RoundUp(static_cast<std::int64_t>(part.header.size()), kCacheLine));
    total += static_cast<double>(RoundUp(SentBytes(part), kCacheLine));
    total += static_cast<double>(RoundUp(part.own_bytes, kCacheLine));
  }
  return total;
}

void ResponseBuffer::Allocate() {
  std::int64_t size = 0;
  std::int64_t own_size = 0;
  for (Part& part : parts_) {
    part.position = size + RoundUp(static_cast<std::int64_t>(part.header.size()), kCacheLine);
    size = part.position + RoundUp(SentBytes(part), kCacheLine);
    part.own_position = own_size;
    own_size += RoundUp(part.own_bytes, kCacheLine);
  }
  memory_ = AlignedBuffer<std::byte>(size);
  if (own_size > 0) own_memory_ = AlignedBuffer<std::byte>(own_size);
  for (const Part& part : parts_) {
    std::memcpy(memory_.data() + part.position - part.header.size(), part.header.data(), part.header.size());
  }
}

void* ResponseBuffer::Computed(const Part& part) const {
  return part.own_bytes == 0 ? memory_.data() + part.position : own_memory_.data() + part.own_position;
}

void* ResponseBuffer::Elements(int field_number) const {
  for (const Part& part : parts_) {
    if (part.field_number == field_number && memory_.data() != nullptr) return Computed(part);
  }
  return nullptr;
}

void ResponseBuffer::ConvertToValues(const Part& part) {
  const void* from = Computed(part);
  auto* to = reinterpret_cast<float*>(memory_.data() + part.position);
  const ConvertKernels& convert = ConvertKernelsFor(BestInstructionSet());  // All give the same bits.
  switch (part.type) {
    case v1::DATA_TYPE_FLOAT64: return ToFloats<double>(from, part.num_elements, to);
    case v1::DATA_TYPE_INT32: return ToFloats<std::int32_t>(from, part.num_elements, to);
    case v1::DATA_TYPE_FLOAT16: return convert.widen(DataType::kFloat16, from, part.num_elements, to);
    default: return convert.widen(DataType::kBFloat16, from, part.num_elements, to);
  }
}

grpc::ByteBuffer ResponseBuffer::Take() {
  for (const Part& part : parts_) {
    if (part.own_bytes != 0) ConvertToValues(part);
  }
  own_memory_ = AlignedBuffer<std::byte>();  // The message may wait for its reader for long.
  // Not before: kernels may write beyond their elements, up to the end of a cache line.
  const Part& last = parts_.back();
  std::memcpy(memory_.data() + last.position + last.wire_bytes, last_field_.data(), last_field_.size());
  auto* memory = new AlignedBuffer<std::byte>(std::move(memory_));
  const grpc::Slice whole(memory->data(), static_cast<std::size_t>(memory->size()), DeleteMemory, memory);
  absl::InlinedVector<grpc::Slice, kInlinedParts> slices;
  for (const Part& part : parts_) {
    const auto elements = static_cast<std::size_t>(part.position);
    slices.push_back(whole.sub(elements - part.header.size(), elements + static_cast<std::size_t>(SentBytes(part))));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace attend::server
