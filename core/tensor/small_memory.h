// The blocks of AllocateAligned that come from malloc, of which each thread keeps a few.
//
// All functions may be called concurrently.
#ifndef ATTEND_CORE_TENSOR_SMALL_MEMORY_H_
#define ATTEND_CORE_TENSOR_SMALL_MEMORY_H_

#include <cstddef>

#include "absl/base/config.h"

namespace attend {

// Sanitizers guard the ends of blocks that they know, so they get each block as it is.
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// As AllocateAligned and FreeAligned, but null when there is no memory.
void* AllocateSmall(std::size_t bytes);
void FreeSmall(void* memory, std::size_t bytes);

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_SMALL_MEMORY_H_
