// Computes scaled dot-product attention, and bounds the memory that this takes.
//
// A valid problem cannot fail, so the one error is CANCELLED. The result's bits depend on the problem alone: not on
// the number of threads, not on the batch entry's index, not on which instruction set with fused multiply-add runs.
//
// May be called concurrently; calls share nothing but the executor's threads.
#ifndef ATTEND_CORE_COMPUTE_COMPUTE_SDPA_H_
#define ATTEND_CORE_COMPUTE_COMPUTE_SDPA_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "core/compute/context.h"
#include "core/problem/sdpa_problem.h"

namespace attend {

// Writes every output that `outputs` names. REQUIRES: the views in `outputs` have the shapes their comments state.
// Returns CANCELLED, with the outputs in an unspecified state, if the flag was raised before the end.
absl::Status ComputeSdpa(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

// The fast kernels that ComputeSdpa uses: `available` if the problem asks for Precision::kFast and they compute its
// types (BFLOAT16 query, key and value, an even head size); otherwise kNone.
FastKernels FastKernelsOf(const SdpaProblem& problem, FastKernels available);
// The same from what it depends on: `types` are those of query, key and value.
FastKernels FastKernelsFor(const AttentionOptions& options, const std::array<DataType, 3>& types, std::int64_t head_dim,
                           FastKernels available);

// What a problem's memory depends on, for a problem that does not exist yet.
struct SdpaExtents {
  std::int64_t rows = 0;      // Query rows of one key/value head: T * H / K.
  std::int64_t kv_heads = 0;  // B * K.
  std::int64_t key_length = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;
  bool is_double = false;
  bool has_narrow = false;        // Something is FLOAT16, BFLOAT16 or INT8.
  bool consumes_weights = false;  // Averaged or top weights are wanted.
  std::int64_t top_k = 0;         // How many top weights of a row.
  // Of a ragged batch, whose sequences are computed each by itself; rows and keys are those of all.
  std::int64_t sequences = 1;
};

// Upper bounds of the bytes that computing a problem allocates beyond inputs and outputs, with `num_threads` threads,
// when the output has the type of the query; `consumes_weights` when averaged or top weights are wanted, of these
// `top_k` for a row. In double, so that no shape overflows.
double SdpaScratchBytes(const SdpaExtents& extents, int num_threads);
double ScratchBytes(const SdpaProblem& problem, int num_threads, bool consumes_weights, std::int64_t top_k = 0);

// The cases that ComputeSdpa delegates. For core/compute alone.
namespace compute_internal {

// REQUIRES: problem.is_double().
absl::Status ComputeDouble(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

// Computes each sequence of a ragged batch (sequences.h) as a problem of its own, so that it has the bits that it would
// have alone. Tensors with a column for each key ([.., T, S]: mask, bias, attention weights, scores) have as many
// columns as the longest sequence has keys; column j is key j of the row's own sequence. REQUIRES: the problem is
// ragged.
absl::Status ComputeRagged(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context);

}  // namespace compute_internal
}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_COMPUTE_SDPA_H_
