// Affine maps of many tokens, spread over threads, with weights packed once or in each call.
#ifndef ATTEND_CORE_LAYER_PROJECTION_H_
#define ATTEND_CORE_LAYER_PROJECTION_H_

#include <cstddef>
#include <cstdint>

#include "core/compute/context.h"
#include "core/compute/workspace.h"
#include "core/kernels/instruction_set.h"
#include "core/layer/layer_view.h"
#include "core/runtime/executor.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {

// The panels of LinearKernels, in the type of the weights, and the bias as floats, for FLOAT32 arithmetic and for fast
// kernels. Owns its memory: about as many bytes as the weights have, and much more when there are few outputs, whose
// panels are filled up (see BytesFor). Results are bit for bit those of the weights it was made of.
//
// Immutable; may be shared between threads.
class PackedLinear {
 public:
  // REQUIRES: linear.weight is not null and of any type but FLOAT64; `instruction_set` is one of
  // SupportedInstructionSets(). Weight and bias may lie at any address, as in a mapped file, also between elements.
  // They are not needed any more afterwards. Idle threads of `executor` help, if there is one: most of the time goes
  // into taking fresh memory from the system, which threads do side by side.
  PackedLinear(const LinearView& linear, InstructionSet instruction_set, Executor* executor = nullptr);

  // What bytes() will be, for deciding before anything is allocated. REQUIRES: as the constructor, but that the weight
  // may be null.
  static std::int64_t BytesFor(const LinearView& linear, InstructionSet instruction_set);

  InstructionSet instruction_set() const { return instruction_set_; }
  DataType weight_type() const { return weight_type_; }
  const void* panels() const { return panels_.data(); }
  const float* bias() const { return bias_.size() > 0 ? bias_.data() : nullptr; }
  std::int64_t bytes() const { return panels_.size() + 4 * bias_.size(); }

 private:
  InstructionSet instruction_set_;
  DataType weight_type_;
  AlignedBuffer<std::byte> panels_;
  AlignedBuffer<float> bias_;
};

// y = x . weight^T + bias for dense x [num_rows, in_features] and y [num_rows, out_features]. Each element of y depends
// on its own row of x and weight alone, also in its bits: it is one chain of fused multiply-adds over ascending
// in_features, or for BFLOAT16 what the fast kernels make of it, rounded to y's type once; for double it is what
// DoubleKernels::dot says.
template <typename T>
struct Projection {
  const T* x = nullptr;
  std::int64_t num_rows = 0;
  LinearView linear;  // For float of any type but FLOAT64; otherwise of x's type, and see HasFastProjection.
  void* y = nullptr;
  DataType y_type = kDataTypeOf<T>;  // For double that; otherwise FLOAT32, FLOAT16 or BFLOAT16.
};

// Whether a projection from BFLOAT16 can be computed by fast kernels: its weights are BFLOAT16, and in_features is
// even.
inline bool HasFastProjection(const LinearView& linear) {
  return linear.weight_type == DataType::kBFloat16 && linear.in_features % 2 == 0;
}

// Computes `count` independent projections. Stops early, with y unspecified, when `context` is cancelled. REQUIRES: for
// BFLOAT16 the context has fast kernels.
void Project(const ComputeContext& context, const Projection<float>* projections, std::int64_t count,
             WorkspacePool& pool);
void Project(const ComputeContext& context, const Projection<BFloat16>* projections, std::int64_t count,
             WorkspacePool& pool);
void Project(const ComputeContext& context, const Projection<double>* projections, std::int64_t count,
             WorkspacePool& pool);

// An upper bound of the bytes that one projection but in FLOAT64 from `in_features` allocates, with `num_threads`
// threads. Pure; in double, so that no shape overflows.
double ProjectionScratchBytes(std::int64_t in_features, int num_threads);

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_PROJECTION_H_
