// Attention with queries in vector lanes: for many rows per key/value head.
//
// Queries are packed transposed; keys and values are read in their natural layout, an element broadcast at a time.
// Scores of a block form a matrix [key][query], so that maximum, exponential and sum are element-wise across registers
// (no horizontal step), and each row's decisions are lane decisions. Outputs are kept transposed, [value_dim][query].
#include "core/kernels/kernel_table.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/query_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/kernels/query_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// A slab of the packed queries that stays in the first-level cache while a block's keys pass.
constexpr int64_t kSlab = 128;

int64_t PackedSize(const AttentionTask& task, int64_t num_rows) { return task.head_dim * Width(num_rows); }

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  const int64_t width = Width(panel.num_rows);
  for (int64_t r = 0; r < panel.num_rows; r += kLanes) {
    const QueryRow* rows = panel.rows + r;
    PackTransposed([rows](int64_t i) { return rows[i].query; }, panel.num_rows - r, task.head_dim,
                   Broadcast(task.query_scale), panel.packed + r, width);
  }
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t r = 0; r < panel.num_rows; ++r) AddMagnitudes(panel.rows[r].query, task.head_dim, magnitudes);
  return MakePackedQueries(task, magnitudes);
}

float LargestKey(const AttentionTask& task, int64_t begin, int64_t end) {
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t j = begin; j < end; ++j) AddMagnitudes(task.keys.Row<float>(j), task.head_dim, magnitudes);
  return Largest(magnitudes);
}

struct ExactProducts {
  static constexpr bool kRounds = false;  // The second product takes weights as they are.

  static void ComputeScores(const Block& block) {
    const AttentionTask& task = block.task;
    for (int64_t d = 0; d < task.head_dim; d += kSlab) {
      Multiply<Walk::kAlongRows>(block.count, block.width / kLanes,
                                 {task.keys.Row<float>(block.first) + d, task.keys.stride},
                                 {block.panel.packed + d * block.width, block.width}, HWY_MIN(kSlab, task.head_dim - d),
                                 {block.scores, block.width}, d > 0);
    }
  }

  // Turns scores into p in place and adds them up. With select_values, p of a masked key becomes -0: it adds nothing to
  // the sum either and can be told from one that underflowed.
  static void Exponentiate(const Block& block, const State& state) {
    const FloatTag d;
    const bool mark = block.task.select_values;
    for (int64_t r = 0; r < block.width; r += kLanes) {
      const Vec subtract = FiniteMaximum(hn::Load(d, state.max + r));
      Vec sum = hn::Load(d, state.sum + r);
      for (int64_t k = 0; k < block.count; ++k) {
        float* scores = block.scores + k * block.width + r;
        const Vec score = hn::Load(d, scores);
        Vec p = Exp2(hn::Sub(score, subtract));
        if (mark) p = hn::IfThenElse(hn::Eq(score, Broadcast(-kInfinity)), Broadcast(-0.0f), p);
        sum = hn::Add(sum, p);
        hn::Store(p, d, scores);
      }
      hn::Store(sum, d, state.sum + r);
    }
  }

  static void AddValues(const Block& block, const State& state) {
    const AttentionTask& task = block.task;
    Multiply<Walk::kAcrossRows>(task.value_dim, block.width / kLanes,
                                {task.values.Row<float>(block.first), task.values.stride}, {block.scores, block.width},
                                block.count, {state.output, block.width}, true);
  }

  // As AddValues, but a masked key's value is not even multiplied by zero.
  static void AddSelectedValues(const Block& block, const State& state) {
    const FloatTag d;
    const Uint32Tag du;
    const AttentionTask& task = block.task;
    const auto masked_bits = hn::Set(du, 0x80000000u);
    for (int64_t k = 0; k < block.count; ++k) {
      const float* value = task.values.Row<float>(block.first + k);
      for (int64_t r = 0; r < block.width; r += kLanes) {
        const Vec p = hn::Load(d, block.scores + k * block.width + r);
        const auto masked = hn::RebindMask(d, hn::Eq(hn::BitCast(du, p), masked_bits));
        for (int64_t v = 0; v < task.value_dim; ++v) {
          float* o = state.output + v * block.width + r;
          const Vec old = hn::Load(d, o);
          hn::Store(hn::IfThenElse(masked, old, hn::MulAdd(Broadcast(value[v]), p, old)), d, o);
        }
      }
    }
  }
};

}  // namespace

const RowKernels& QueryLanes() {
  static constexpr RowKernels kKernels = {.max_rows = kMaxRows,
                                          .row_multiple = kLanes,
                                          .packed_size = PackedSize,
                                          .state_size = StateSize,
                                          .scratch_size = ScratchSize,
                                          .pack = Pack,
                                          .largest_key = LargestKey,
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
const RowKernels& QueryLaneKernels(InstructionSet set) { ATTEND_RETURN_FOR(set, QueryLanes) }
}  // namespace attend
#endif
