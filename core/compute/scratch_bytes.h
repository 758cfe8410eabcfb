// How much memory computing attention takes beyond inputs and outputs: bounds that a server can refuse by.
//
// They follow what compute_sdpa.cc, row_group.cc, exact_rows.cc and compute_double.cc allocate, rounded up. Pure; in
// double, so that no shape overflows. May be called concurrently.
#ifndef ATTEND_CORE_COMPUTE_SCRATCH_BYTES_H_
#define ATTEND_CORE_COMPUTE_SCRATCH_BYTES_H_

#include <cstdint>

#include "core/problem/sdpa_problem.h"

namespace attend {

// What the memory of a problem depends on, where the problem itself does not exist yet.
struct SdpaExtents {
  std::int64_t rows = 0;      // Query rows of one key/value head: T * H / K.
  std::int64_t kv_heads = 0;  // B * K.
  std::int64_t key_length = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;
  bool is_double = false;
  bool has_narrow = false;        // Something is FLOAT16 or BFLOAT16.
  bool consumes_weights = false;  // Averaged or top weights are wanted.
};

// At most this much with `num_threads` threads.
double SdpaScratchBytes(const SdpaExtents& extents, int num_threads);

// At most this much with `num_threads` threads, when the output has the type of the query; `consumes_weights` when
// averaged or top weights are wanted.
double ScratchBytes(const SdpaProblem& problem, int num_threads, bool consumes_weights);

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_SCRATCH_BYTES_H_
