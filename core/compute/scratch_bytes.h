// How much memory computing attention takes beyond inputs and outputs: bounds that a server can refuse by.
//
// They follow what compute_sdpa.cc, row_group.cc, exact_rows.cc, compute_sdpa_double.cc and projection.cc allocate,
// rounded up. Pure; in double, so that no shape overflows.
#ifndef ATTEND_CORE_COMPUTE_SCRATCH_BYTES_H_
#define ATTEND_CORE_COMPUTE_SCRATCH_BYTES_H_

#include <cstdint>

namespace attend {

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

// At most this much for one projection in FLOAT32 from `in_features`, with `num_threads` threads.
double ProjectionScratchBytes(std::int64_t in_features, int num_threads);

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_SCRATCH_BYTES_H_
