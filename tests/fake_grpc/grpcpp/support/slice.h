// grpc::Slice, for tests/fake_grpc: bytes that several may hold on to.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_SLICE_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_SLICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace grpc {

class Slice {
 public:
  Slice() = default;
  explicit Slice(const std::string& bytes) : Slice(bytes.data(), bytes.size()) {}
  // A copy of the bytes.
  Slice(const void* bytes, std::size_t size) {
    auto copy = std::make_shared<std::string>(static_cast<const char*>(bytes), size);
    begin_ = reinterpret_cast<const std::uint8_t*>(copy->data());
    size_ = size;
    owner_ = std::move(copy);
  }
  // Takes the bytes; calls destroy(user_data) when the last slice of them is gone, on whichever thread that is.
  Slice(void* bytes, std::size_t size, void (*destroy)(void*), void* user_data)
      : owner_(user_data, destroy), begin_(static_cast<const std::uint8_t*>(bytes)), size_(size) {}

  Slice sub(std::size_t begin, std::size_t end) const {
    Slice part = *this;
    part.begin_ += begin;
    part.size_ = end - begin;
    return part;
  }
  const std::uint8_t* begin() const { return begin_; }
  const std::uint8_t* end() const { return begin_ + size_; }
  std::size_t size() const { return size_; }

 private:
  std::shared_ptr<void> owner_;
  const std::uint8_t* begin_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_SLICE_H_
