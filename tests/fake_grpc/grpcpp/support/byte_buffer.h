// grpc::ByteBuffer, for tests/fake_grpc. As gRPC's it has no move constructor: a moved-from one keeps its slices.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_BYTE_BUFFER_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_BYTE_BUFFER_H_

#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace grpc {

class ByteBuffer {
 public:
  ByteBuffer() = default;
  ByteBuffer(const Slice* slices, std::size_t count) : slices_(std::in_place, slices, slices + count) {}
  ByteBuffer(const ByteBuffer&) = default;
  ByteBuffer& operator=(const ByteBuffer&) = default;

  bool Valid() const { return slices_.has_value(); }
  void Clear() { slices_.reset(); }
  void Swap(ByteBuffer* other) { slices_.swap(other->slices_); }

  std::size_t Length() const {
    std::size_t length = 0;
    if (!Valid()) return length;
    for (const Slice& slice : *slices_) length += slice.size();
    return length;
  }

  Status Dump(std::vector<Slice>* slices) const {
    if (!Valid()) return NotInitialized();
    *slices = *slices_;
    return Status::OK;
  }
  Status TrySingleSlice(Slice* slice) const {
    if (!Valid()) return NotInitialized();
    if (slices_->size() != 1) return Status(StatusCode::FAILED_PRECONDITION, "Buffer isn't made up of a single slice.");
    *slice = slices_->front();
    return Status::OK;
  }
  Status DumpToSingleSlice(Slice* slice) const {
    if (!Valid()) return NotInitialized();
    std::string bytes;
    for (const Slice& part : *slices_) bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
    *slice = Slice(bytes);
    return Status::OK;
  }

 private:
  static Status NotInitialized() { return Status(StatusCode::FAILED_PRECONDITION, "Buffer not initialized"); }

  std::optional<std::vector<Slice>> slices_;
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_BYTE_BUFFER_H_
