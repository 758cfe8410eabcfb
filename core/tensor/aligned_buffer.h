// Owning, aligned, uninitialised memory for numbers, and its allocator.
//
// Small blocks come from malloc; each thread keeps a few freed blocks of 513 bytes to 16 KiB, because malloc would join
// and split them in every small request. Large blocks are mapped, in huge pages where the system has them: the first
// touch of a page costs about as much as copying it, and a huge page is touched 512 times less often. Up to
// kMaxPooledBytes of freed large blocks are kept for requests of the same size, because zeroing fresh memory costs a
// third of copying into it. Kept blocks are marked as free for the system to take back (MADV_FREE); others are unmapped
// at once, so that one large request does not leave a server large.
//
// All functions may be called concurrently.
#ifndef ATTEND_CORE_TENSOR_ALIGNED_BUFFER_H_
#define ATTEND_CORE_TENSOR_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/base/config.h"
#include "core/base/round.h"

namespace attend {

// Sanitizers guard the ends of blocks that they know, so they get each block as it is, and none is kept from them.
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
inline constexpr bool kIsSanitized = true;
#else
inline constexpr bool kIsSanitized = false;
#endif

// The most bytes of freed large blocks that are kept, in all; they count as resident until the system takes them. A
// larger block is never kept.
inline constexpr std::size_t kMaxPooledBytes = std::size_t{64} << 20;

// The bytes of large blocks kept at the moment. Small ones come to 425 KiB for each thread at most.
std::size_t PooledBytes();

// At least `bytes` bytes at a multiple of kCacheLine, uninitialised. Ends the process when there are none. REQUIRES:
// bytes > 0.
void* AllocateAligned(std::size_t bytes);

// REQUIRES: `memory` came from AllocateAligned(bytes), with the same `bytes`.
void FreeAligned(void* memory, std::size_t bytes);

// `size` elements of T at a multiple of kCacheLine. The contents start uninitialised. Move-only; a moved-from or
// default buffer is empty. Running out of memory ends the process: callers bound sizes first.
template <typename T>
class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = kCacheLine;

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
