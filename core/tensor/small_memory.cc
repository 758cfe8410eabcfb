#include "core/tensor/small_memory.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/tensor/aligned_memory.h"

namespace attend {
namespace {

// What std::aligned_alloc does, in a fifth of its time, which small requests notice: malloc's own address is kept right
// before the aligned one.
void* AllocateFromMalloc(std::size_t bytes) {
  if (kSanitized)
    return std::aligned_alloc(kMemoryAlignment, (bytes + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment);
  char* start = static_cast<char*>(std::malloc(bytes + kMemoryAlignment));
  if (start == nullptr) return nullptr;
  const std::size_t before = kMemoryAlignment - reinterpret_cast<std::uintptr_t>(start) % kMemoryAlignment;
  static_assert(alignof(std::max_align_t) >= sizeof(start));  // And so is `before`.
  std::memcpy(start + before - sizeof(start), &start, sizeof(start));
  return start + before;
}

void FreeToMalloc(void* memory) {
  if (kSanitized) return std::free(memory);
  char* start = nullptr;
  std::memcpy(&start, static_cast<char*>(memory) - sizeof(start), sizeof(start));
  std::free(start);
}

// Whether this thread's cache, below, is gone: a thread that ends may free buffers after it.
bool& ThreadCacheEnded() {
  thread_local bool ended = false;
  return ended;
}

// The blocks of a few sizes that this thread freed last. malloc keeps only those below 1 KiB as they are; larger ones
// it joins with their neighbours and cuts again, five times in a small request.
class ThreadCache {
 public:
  ThreadCache() = default;
  ThreadCache(const ThreadCache&) = delete;
  ThreadCache& operator=(const ThreadCache&) = delete;
  ~ThreadCache() {
    ThreadCacheEnded() = true;
    for (SizeClass& size : sizes_) {
      while (size.count > 0) FreeToMalloc(size.blocks[--size.count]);
    }
  }

  // Whether blocks of `bytes` are kept by this thread, now.
  static bool Covers(std::size_t bytes) {
    return bytes > kSmallest / 2 && bytes <= kLargest && !kSanitized && !ThreadCacheEnded();
  }

  // REQUIRES: Covers(bytes).
  void* Take(std::size_t bytes) {
    SizeClass& size = sizes_[ClassOf(bytes)];
    return size.count > 0 ? size.blocks[--size.count] : AllocateFromMalloc(std::bit_ceil(bytes));
  }
  void Give(void* memory, std::size_t bytes) {
    SizeClass& size = sizes_[ClassOf(bytes)];
    if (size.count == kBlocks) return FreeToMalloc(memory);
    size.blocks[size.count++] = memory;
  }

 private:
  static constexpr std::size_t kSmallest = std::size_t{1} << 10, kLargest = std::size_t{1} << 14;
  static constexpr std::size_t kClasses = std::bit_width(kLargest / kSmallest);
  static constexpr std::size_t kBlocks = 8;  // Of each size: 250 KiB in all.

  struct SizeClass {
    std::array<void*, kBlocks> blocks;
    std::size_t count = 0;
  };

  // REQUIRES: Covers(bytes).
  static std::size_t ClassOf(std::size_t bytes) { return std::bit_width((bytes - 1) / kSmallest); }

  std::array<SizeClass, kClasses> sizes_;
};

ThreadCache& TheThreadCache() {
  thread_local ThreadCache cache;
  return cache;
}

}  // namespace

void* AllocateSmall(std::size_t bytes) {
  return ThreadCache::Covers(bytes) ? TheThreadCache().Take(bytes) : AllocateFromMalloc(bytes);
}

void FreeSmall(void* memory, std::size_t bytes) {
  if (ThreadCache::Covers(bytes)) {
    TheThreadCache().Give(memory, bytes);
  } else {
    FreeToMalloc(memory);
  }
}

}  // namespace attend
