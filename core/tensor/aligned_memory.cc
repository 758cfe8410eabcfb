#include "core/tensor/aligned_memory.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/base/config.h"

namespace attend {
namespace {

constexpr std::size_t kPage = std::size_t{4} << 10;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Smaller blocks are malloc's, which does not ask the system each time.
constexpr std::size_t kLarge = 4 * kHugePage;

// Sanitizers guard the ends of blocks that they know, so they get each block as it is.
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr std::size_t RoundUp(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr bool IsMapped(std::size_t bytes) { return bytes >= kLarge && !kSanitized; }

// Whole pages that begin at a multiple of a huge page, which the system needs in order to use one. Null on failure.
void* Map(std::size_t bytes) {
  const std::size_t size = RoundUp(bytes, kPage);
  void* mapped = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(mapped);
  const std::size_t before =
      RoundUp(reinterpret_cast<std::uintptr_t>(begin), kHugePage) - reinterpret_cast<std::uintptr_t>(begin);
  if (before > 0) munmap(begin, before);
  if (before < kHugePage) munmap(begin + before + size, kHugePage - before);
  madvise(begin + before, size, MADV_HUGEPAGE);  // A wish: without huge pages it works all the same.
  return begin + before;
}

// What std::aligned_alloc does, in a fifth of its time, which small requests notice: malloc's own address is kept right
// before the aligned one.
void* AllocateSmall(std::size_t bytes) {
  if (kSanitized) return std::aligned_alloc(kMemoryAlignment, RoundUp(bytes, kMemoryAlignment));
  char* start = static_cast<char*>(std::malloc(bytes + kMemoryAlignment));
  if (start == nullptr) return nullptr;
  const std::size_t before = kMemoryAlignment - reinterpret_cast<std::uintptr_t>(start) % kMemoryAlignment;
  static_assert(alignof(std::max_align_t) >= sizeof(start));  // And so is `before`.
  std::memcpy(start + before - sizeof(start), &start, sizeof(start));
  return start + before;
}

void FreeSmall(void* memory) {
  if (kSanitized) return std::free(memory);
  char* start = nullptr;
  std::memcpy(&start, static_cast<char*>(memory) - sizeof(start), sizeof(start));
  std::free(start);
}

}  // namespace

void* AllocateAligned(std::size_t bytes) {
  void* memory = IsMapped(bytes) ? Map(bytes) : AllocateSmall(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}

void FreeAligned(void* memory, std::size_t bytes) {
  if (IsMapped(bytes)) {
    munmap(memory, RoundUp(bytes, kPage));
  } else {
    FreeSmall(memory);
  }
}

}  // namespace attend
