#include "server/codec/response_buffer.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

#include <cstring>
#include <utility>

#include "attend/v1/tensor.pb.h"

namespace attend::server {
namespace {

using google::protobuf::internal::WireFormatLite;

constexpr std::int64_t kAlignment = AlignedBuffer<std::byte>::kAlignment;

constexpr std::int64_t RoundUpToAlignment(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// The tag and length that come before `length` bytes.
std::string LengthPrefix(int field_number, std::int64_t length) {
  std::string prefix;
  {
    google::protobuf::io::StringOutputStream stream(&prefix);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.WriteTag(WireFormatLite::MakeTag(field_number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
    out.WriteVarint64(static_cast<std::uint64_t>(length));
  }
  return prefix;
}

// Everything of the field that comes before its elements.
std::string TensorHeader(int field_number, absl::Span<const std::int64_t> shape, TensorForm form,
                         std::int64_t num_bytes) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  const int elements_field = form == TensorForm::kData ? v1::Tensor::kDataFieldNumber : v1::Tensor::kValuesFieldNumber;
  const std::string inner = tensor.SerializeAsString() + LengthPrefix(elements_field, num_bytes);
  return LengthPrefix(field_number, static_cast<std::int64_t>(inner.size()) + num_bytes) + inner;
}

void DeleteMemory(void* memory) { delete static_cast<AlignedBuffer<std::byte>*>(memory); }

}  // namespace

void ResponseBuffer::AddTensor(int field_number, absl::Span<const std::int64_t> shape) {
  std::int64_t num_bytes = sizeof(float);
  for (const std::int64_t axis : shape) num_bytes *= axis;
  parts_.push_back({field_number, TensorHeader(field_number, shape, form_, num_bytes), num_bytes});
}

double ResponseBuffer::SerializedBytes() const {
  double total = 0;
  for (const Part& part : parts_)
    total += static_cast<double>(part.header.size()) + static_cast<double>(part.num_bytes);
  return total;
}

double ResponseBuffer::MemoryBytes() const {
  double total = 0;
  for (const Part& part : parts_) {
    total += static_cast<double>(RoundUpToAlignment(static_cast<std::int64_t>(part.header.size())));
    total += static_cast<double>(RoundUpToAlignment(part.num_bytes));
  }
  return total;
}

void ResponseBuffer::Allocate() {
  std::int64_t size = 0;
  for (Part& part : parts_) {
    part.position = size + RoundUpToAlignment(static_cast<std::int64_t>(part.header.size()));
    size = part.position + RoundUpToAlignment(part.num_bytes);
  }
  memory_ = AlignedBuffer<std::byte>(size);
  for (const Part& part : parts_) {
    std::memcpy(memory_.data() + part.position - part.header.size(), part.header.data(), part.header.size());
  }
}

float* ResponseBuffer::Elements(int field_number) const {
  for (const Part& part : parts_) {
    if (part.field_number == field_number && memory_.data() != nullptr) {
      return reinterpret_cast<float*>(memory_.data() + part.position);
    }
  }
  return nullptr;
}

grpc::ByteBuffer ResponseBuffer::Take() {
  auto* memory = new AlignedBuffer<std::byte>(std::move(memory_));
  const grpc::Slice whole(memory->data(), static_cast<std::size_t>(memory->size()), DeleteMemory, memory);
  std::vector<grpc::Slice> slices;
  slices.reserve(parts_.size());
  for (const Part& part : parts_) {
    const auto elements = static_cast<std::size_t>(part.position);
    slices.push_back(whole.sub(elements - part.header.size(), elements + static_cast<std::size_t>(part.num_bytes)));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace attend::server
