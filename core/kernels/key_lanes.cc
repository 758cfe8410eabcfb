// Attention with keys in vector lanes: for a few rows per key/value head, as in decoding, where reading keys and values
// once is all that matters.
//
// A block of keys is transposed in registers into the first-level cache; scores are then the same chains over the head
// dimension as with queries in lanes, a broadcast query element times a vector of keys. The sum over values has value
// dimensions in lanes and broadcasts p: again the same chains. So both files give the same bits.
#include "core/kernels/kernel_table.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/key_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/kernels/key_scores-inl.h"
#include "core/kernels/key_softmax-inl.h"
#include "core/kernels/key_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {

int64_t PackedSize(const AttentionTask& task, int64_t num_rows) { return num_rows * task.head_dim; }
int64_t ScratchSize(const AttentionTask& task, int64_t) {
  const bool in_place = task.value_dim % kLanes == 0 && task.values.type == DataType::kFloat32;
  const int64_t values = in_place ? 0 : kKeyBlock * Padded(task.value_dim);
  return (kMaxRows + kSlab) * kKeyBlock + values;
}

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  const Vec scale = Broadcast(task.query_scale);
  Magnitudes magnitudes = NoMagnitudes();
  float* to = panel.packed;
  for (int64_t r = 0; r < panel.num_rows; ++r, to += task.head_dim) {
    for (int64_t d = 0; d < task.head_dim; d += kLanes) {
      const Vec query = LoadFirst(panel.rows[r].query + d, task.head_dim - d);
      AddMagnitudes(query, magnitudes);
      StoreFirst(hn::Mul(query, scale), to + d, task.head_dim - d);
    }
  }
  return MakePackedQueries(task, magnitudes);
}

struct ExactProducts {
  static constexpr bool kRounds = false;  // The second product takes weights as they are.

  static void ComputeScores(const Block& block) { ScoreBlock(block); }
  static void AddValues(const Block& block, const State& state) { AddBlockValues(block, state); }
};

}  // namespace

const RowKernels& KeyLanes() {
  static constexpr RowKernels kKernels = {.max_rows = kMaxRows,
                                          .reads_narrow = true,
                                          .row_multiple = 1,
                                          .packed_size = PackedSize,
                                          .state_size = StateSize,
                                          .scratch_size = ScratchSize,
                                          .pack = Pack,
                                          .reset = Reset,
                                          .accumulate = Accumulate<ExactProducts>,
                                          .merge = Merge,
                                          .finish = Finish<ExactProducts>};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend {
const RowKernels& KeyLaneKernels(InstructionSet set) { ATTEND_RETURN_FOR(set, KeyLanes) }
}  // namespace attend
#endif
