// Where AlignedBuffer takes its memory from.
//
// Small blocks come from malloc; each thread keeps a few of those from 513 bytes to 16 KiB that it freed, because
// malloc would join and cut them for every small request. Large ones come straight from the system, in huge pages where
// it has them: touching a page for the first time costs about as much as copying it, and 2 MiB at a time that is paid
// 512 times less often. When they are freed, up to kMaxPooledBytes of them are kept for the next request of about their
// size, because even so the system's zeroing of fresh memory costs a third of what copying into it does. Kept blocks
// are marked as free to be taken back by a system that runs short of memory (MADV_FREE). All others go straight back,
// so that one large request does not leave a server large.
//
// All functions may be called concurrently.
#ifndef ATTEND_CORE_TENSOR_ALIGNED_MEMORY_H_
#define ATTEND_CORE_TENSOR_ALIGNED_MEMORY_H_

#include <cstddef>

namespace attend {

// In bytes: a cache line, and the widest vector.
inline constexpr std::size_t kMemoryAlignment = 64;

// The most that is kept of large blocks, in all; it counts as resident until the system wants it. A block larger than
// that is never kept.
inline constexpr std::size_t kMaxPooledBytes = std::size_t{64} << 20;

// What is kept of large blocks at the moment, in bytes. Small ones come to 250 KiB for each thread at most.
std::size_t PooledBytes();

// At least `bytes` bytes, uninitialised. Ends the process when there are none. REQUIRES: bytes > 0.
void* AllocateAligned(std::size_t bytes);

// REQUIRES: `memory` came from AllocateAligned(bytes), with the same `bytes`.
void FreeAligned(void* memory, std::size_t bytes);

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_ALIGNED_MEMORY_H_
