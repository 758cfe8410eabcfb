// Weights of a projection, packed once for one instruction set instead of in each call.
#ifndef ATTEND_CORE_LAYER_PACKED_LINEAR_H_
#define ATTEND_CORE_LAYER_PACKED_LINEAR_H_

#include <cstdint>

#include "core/kernels/instruction_set.h"
#include "core/layer/attend_problem.h"
#include "core/runtime/executor.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {

// The panels of LinearKernels and the bias as floats, for FLOAT32 arithmetic. Owns its memory: about
// 4 * out_features * in_features bytes whatever the type, and much more when there are few outputs, whose panels are
// filled up (see BytesFor). Results are bit for bit those of the weights it was made of.
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
  const float* panels() const { return panels_.data(); }
  const float* bias() const { return bias_.size() > 0 ? bias_.data() : nullptr; }
  std::int64_t bytes() const { return 4 * (panels_.size() + bias_.size()); }

 private:
  InstructionSet instruction_set_;
  AlignedBuffer<float> panels_;
  AlignedBuffer<float> bias_;
};

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_PACKED_LINEAR_H_
