// Owning, aligned, uninitialised memory for numbers.
#ifndef ATTEND_CORE_TENSOR_ALIGNED_BUFFER_H_
#define ATTEND_CORE_TENSOR_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/tensor/aligned_memory.h"

namespace attend {

// `size` elements of T, aligned to a cache line (64 bytes), which is also the widest vector. The contents start
// uninitialised. Move-only; a moved-from or default buffer is empty. Running out of memory is not an error that a
// request can be blamed for or recover from: callers bound sizes first, and the process ends if the system lies.
template <typename T>
class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = kMemoryAlignment;

  AlignedBuffer() = default;
  explicit AlignedBuffer(std::int64_t size) : size_(size) {
    if (size <= 0) return;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    data_ = std::unique_ptr<T[], Free>(static_cast<T*>(AllocateAligned(bytes)), Free{bytes});
  }

  T* data() const { return data_.get(); }
  std::int64_t size() const { return data_ == nullptr ? 0 : size_; }
  T& operator[](std::int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    std::size_t bytes = 0;
    void operator()(T* memory) const { FreeAligned(memory, bytes); }
  };
  std::unique_ptr<T[], Free> data_;
  std::int64_t size_ = 0;
};

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_ALIGNED_BUFFER_H_
