#include "core/tensor/aligned_memory.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"
#include "core/tensor/small_memory.h"

namespace attend {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Smaller blocks are malloc's, which does not ask the system each time.
constexpr std::size_t kLarge = 4 * kHugePage;

constexpr std::size_t RoundUp(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr bool IsMapped(std::size_t bytes) { return bytes >= kLarge && !kSanitized; }

// Whole pages that begin at a multiple of a huge page, which the system needs in order to use one. Null on failure.
void* Map(std::size_t size) {
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

// Freed blocks that wait to be used again. Few: they are large.
class Pool {
 public:
  // A block of `size` bytes, or null. Blocks are used for no other size, so that what is resident is what was asked
  // for; sizes are rounded to huge pages, which makes neighbouring ones equal.
  void* Take(std::size_t size) {
    const MutexLock lock(mu_);
    for (std::size_t i = blocks_.size(); i-- > 0;) {
      if (blocks_[i].size != size) continue;
      void* const memory = blocks_[i].memory;
      blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(i));
      bytes_ -= size;
      return memory;
    }
    return nullptr;
  }

  // Keeps the block; the oldest ones that are now too much go back to the system.
  void Give(void* memory, std::size_t size) {
    if (size > kMaxPooledBytes) {
      munmap(memory, size);
      return;
    }
    madvise(memory, size, MADV_FREE);
    const MutexLock lock(mu_);
    blocks_.push_back({memory, size});
    bytes_ += size;
    while (bytes_ > kMaxPooledBytes) {
      munmap(blocks_.front().memory, blocks_.front().size);
      bytes_ -= blocks_.front().size;
      blocks_.pop_front();
    }
  }

  std::size_t bytes() {
    const MutexLock lock(mu_);
    return bytes_;
  }

 private:
  struct Block {
    void* memory;
    std::size_t size;
  };
  Mutex mu_;
  std::deque<Block> blocks_ ABSL_GUARDED_BY(mu_);
  std::size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

// One for the process, as malloc's own; never destroyed, since buffers may be freed at exit.
Pool& ThePool() {
  // NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): it stands beside malloc, which is one too.
  static Pool& pool = *new Pool;
  return pool;
}

std::size_t MappedSize(std::size_t bytes) { return RoundUp(bytes, kHugePage); }

void* TakeOrMap(std::size_t size) {
  void* const memory = ThePool().Take(size);
  return memory != nullptr ? memory : Map(size);
}

}  // namespace

std::size_t PooledBytes() { return ThePool().bytes(); }

void* AllocateAligned(std::size_t bytes) {
  void* memory = IsMapped(bytes) ? TakeOrMap(MappedSize(bytes)) : AllocateSmall(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}

void FreeAligned(void* memory, std::size_t bytes) {
  if (IsMapped(bytes)) {
    ThePool().Give(memory, MappedSize(bytes));
  } else {
    FreeSmall(memory, bytes);
  }
}

}  // namespace attend
