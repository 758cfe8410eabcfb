// Where AlignedBuffer takes its memory from.
//
// Small blocks come from malloc. Large ones come straight from the system, in huge pages where it has them: touching a
// page for the first time costs about as much as copying it, and 2 MiB at a time that is paid 512 times less often.
// They go straight back when they are freed, so that one large request does not leave a server large.
//
// Both functions may be called concurrently.
#ifndef ATTEND_CORE_TENSOR_ALIGNED_MEMORY_H_
#define ATTEND_CORE_TENSOR_ALIGNED_MEMORY_H_

#include <cstddef>

namespace attend {

// In bytes: a cache line, and the widest vector.
inline constexpr std::size_t kMemoryAlignment = 64;

// At least `bytes` bytes, uninitialised. Ends the process when there are none. REQUIRES: bytes > 0.
void* AllocateAligned(std::size_t bytes);

// REQUIRES: `memory` came from AllocateAligned(bytes), with the same `bytes`.
void FreeAligned(void* memory, std::size_t bytes);

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_ALIGNED_MEMORY_H_
