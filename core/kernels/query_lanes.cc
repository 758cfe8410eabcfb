// Attention with queries in vector lanes: for many rows per key/value head.
//
// Queries are packed transposed; keys and values are read in their natural layout, an element broadcast at a time.
// Scores of a block form a matrix [key][query], so that maximum, exponential and sum are element-wise across registers
// (no horizontal step), and each row's decisions are lane decisions. Outputs are kept transposed, [value_dim][query].
#include "core/base/round.h"
#include "core/kernels/kernel_table.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/query_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kMaxVectors = kTileVectors;
constexpr int64_t kMaxRows = kMaxVectors * kLanes;
static_assert(kMaxRows <= 64);
// A slab of the packed queries that stays in the first-level cache while a block's keys pass.
constexpr int64_t kSlab = 128;

int64_t Width(int64_t num_rows) { return RoundUp(num_rows, kLanes); }

// A state is [maximum][sum][output: value_dim], each a row of Width floats.
struct State {
  State(const Panel& panel, float* data)
      : width(Width(panel.num_rows)), max(data), sum(data + width), output(data + 2 * width) {}
  int64_t width;
  float* max;
  float* sum;
  float* output;
};

int64_t PackedSize(const AttentionTask& task, int64_t num_rows) { return task.head_dim * Width(num_rows); }
int64_t StateSize(const AttentionTask& task, int64_t num_rows) { return (task.value_dim + 2) * Width(num_rows); }
int64_t ScratchSize(const AttentionTask&, int64_t num_rows) { return (kKeyBlock + 1) * Width(num_rows); }

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  const int64_t width = Width(panel.num_rows);
  for (int64_t r = 0; r < panel.num_rows; r += kLanes) {
    const QueryRow* rows = panel.rows + r;
    PackTransposed([rows](int64_t i) { return rows[i].query; }, panel.num_rows - r, task.head_dim, task.query_scale,
                   panel.packed + r, width);
  }
  return MakePackedQueries(panel);
}

float LargestKey(const AttentionTask& task, int64_t begin, int64_t end) {
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t j = begin; j < end; ++j) AddMagnitudes(task.keys.Row<float>(j), task.head_dim, magnitudes);
  return Largest(magnitudes);
}

void Reset(const Panel& panel, float* data) {
  const State state(panel, data);
  const FloatTag d;
  for (int64_t i = 0; i < state.width; i += kLanes) hn::Store(Broadcast(-kInfinity), d, state.max + i);
  for (int64_t i = 0; i < state.width * (panel.task->value_dim + 1); i += kLanes) {
    hn::Store(hn::Zero(d), d, state.sum + i);
  }
}

// One block of keys and its scores [count][width].
struct Block {
  const AttentionTask& task;
  const Panel& panel;
  int64_t first;
  int64_t count;
  int64_t width;
  float* scores;
};

bool Notices(const Block& block) { return block.task.notice_overflow && block.panel.may_overflow; }

// Which keys of a block each lane sees, as two words of 32 keys.
struct Visibility {
  HWY_ALIGN std::uint32_t low[kMaxRows];
  HWY_ALIGN std::uint32_t high[kMaxRows];
  bool all = true;   // Every row sees every key.
  bool none = true;  // No row sees any.
};

void FindVisible(const Block& block, Visibility& visible) {
  const std::uint64_t full = LowBits(block.count);
  const std::uint64_t unmasked = KeyMaskWord(block.task, block.first, block.count);
  visible.all = visible.none = true;
  for (int64_t r = 0; r < block.panel.num_rows; ++r) {
    const QueryRow& row = block.panel.rows[r];
    // As many streams as rows are too many for the hardware to follow.
    if (row.mask != nullptr) __builtin_prefetch(row.mask + block.first + kKeyBlock);
    const std::uint64_t word = VisibleWord(block.task, row, unmasked, block.first, block.count);
    visible.low[r] = static_cast<std::uint32_t>(word);
    visible.high[r] = static_cast<std::uint32_t>(word >> 32);
    visible.all = visible.all && word == full;
    visible.none = visible.none && word == 0;
  }
  for (int64_t r = block.panel.num_rows; r < block.width; ++r) visible.low[r] = visible.high[r] = 0;
}

void ComputeScores(const Block& block) {
  const AttentionTask& task = block.task;
  for (int64_t d = 0; d < task.head_dim; d += kSlab) {
    Multiply<Walk::kAlongRows>(block.count, block.width / kLanes,
                               {task.keys.Row<float>(block.first) + d, task.keys.stride},
                               {block.panel.packed + d * block.width, block.width}, HWY_MIN(kSlab, task.head_dim - d),
                               {block.scores, block.width}, d > 0);
  }
}

void ApplySoftcap(const Block& block) {
  const FloatTag d;
  const Vec cap = Broadcast(block.task.softcap);
  const bool notice = Notices(block);
  for (int64_t i = 0; i < block.count * block.width; i += kLanes) {
    const Vec score = hn::Load(d, block.scores + i);
    hn::Store(hn::Mul(cap, Tanh(notice ? NanIfInfinite(score) : score)), d, block.scores + i);
  }
}

void AddBias(const Block& block) {
  const FloatTag d;
  const Vec log2e = Broadcast(kLog2E);
  const bool notice = Notices(block);
  for (int64_t r = 0; r < block.panel.num_rows; r += kLanes) {
    const QueryRow* rows = block.panel.rows + r;
    const int64_t lanes = HWY_MIN(kLanes, block.panel.num_rows - r);
    for (int64_t k = 0; k < block.count; k += kLanes) {
      const int64_t keys = HWY_MIN(kLanes, block.count - k);
      Vec tile[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        if (i >= lanes) {
          tile[i] = hn::Zero(d);
        } else if (block.task.bias_stride == 0) {
          tile[i] = Broadcast(*rows[i].bias);
        } else {
          tile[i] = LoadFirst(rows[i].bias + block.first + k, keys);
        }
      }
      Transpose(tile);
      for (int64_t i = 0; i < keys; ++i) {
        float* scores = block.scores + (k + i) * block.width + r;
        const Vec score = hn::Load(d, scores);
        hn::Store(hn::MulAdd(tile[i], log2e, notice ? NanIfInfinite(score) : score), d, scores);
      }
    }
  }
}

void AddAlibi(const Block& block) {
  const FloatTag d;
  const bool notice = Notices(block) && !block.task.has_bias;
  HWY_ALIGN float slope[kLanes];
  HWY_ALIGN float position[kLanes];
  for (int64_t r = 0; r < block.width; r += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const bool valid = r + i < block.panel.num_rows;
      slope[i] = valid ? block.panel.rows[r + i].alibi : 0.0f;
      position[i] = valid ? block.panel.rows[r + i].position : 0.0f;
    }
    const Vec slopes = hn::Load(d, slope);
    const Vec positions = hn::Load(d, position);
    for (int64_t k = 0; k < block.count; ++k) {
      float* scores = block.scores + k * block.width + r;
      const Vec distance = hn::Abs(hn::Sub(positions, Broadcast(static_cast<float>(block.first + k))));
      const Vec score = hn::Load(d, scores);
      hn::Store(hn::MulAdd(slopes, distance, notice ? NanIfInfinite(score) : score), d, scores);
    }
  }
}

void ApplyMask(const Block& block, const Visibility& visible) {
  const FloatTag d;
  const Uint32Tag du;
  const Vec masked = Broadcast(-kInfinity);
  const bool notice = Notices(block) && HasPlainScores(block.task);
  for (int64_t r = 0; r < block.width; r += kLanes) {
    const auto low = hn::Load(du, visible.low + r);
    const auto high = hn::Load(du, visible.high + r);
    for (int64_t k = 0; k < block.count; ++k) {
      const auto bit = hn::Set(du, std::uint32_t{1} << (k % 32));
      const auto sees = hn::RebindMask(d, hn::TestBit(k < 32 ? low : high, bit));
      float* scores = block.scores + k * block.width + r;
      const Vec score = hn::Load(d, scores);
      hn::Store(hn::IfThenElse(sees, notice ? NanIfInfinite(score) : score, masked), d, scores);
    }
  }
}

// Copies the block's scores to the rows that keep them.
void KeepScores(const Block& block) {
  const FloatTag d;
  for (int64_t r = 0; r < block.panel.num_rows; r += kLanes) {
    const QueryRow* rows = block.panel.rows + r;
    const int64_t lanes = HWY_MIN(kLanes, block.panel.num_rows - r);
    for (int64_t k = 0; k < block.count; k += kLanes) {
      const int64_t keys = HWY_MIN(kLanes, block.count - k);
      Vec tile[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        tile[i] = i < keys ? hn::Load(d, block.scores + (k + i) * block.width + r) : hn::Zero(d);
      }
      Transpose(tile);
      for (int64_t i = 0; i < lanes; ++i) StoreFirst(tile[i], rows[i].kept_scores() + block.first + k, keys);
    }
  }
}

struct Extremes {
  Vec max;
  Vec min;  // 0 if that is less, or not asked for.
};

// The extremes of each lane over the block. Four chains, because they do not care about order.
template <bool kMinimum>
HWY_INLINE Extremes BlockExtremes(const Block& block, int64_t r) {
  const FloatTag d;
  const float* scores = block.scores + r;
  Vec max[4] = {Broadcast(-kInfinity), Broadcast(-kInfinity), Broadcast(-kInfinity), Broadcast(-kInfinity)};
  Vec min[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  const auto add = [&](int64_t k, int i) {
    const Vec score = hn::Load(d, scores + k * block.width);
    max[i] = hn::Max(score, max[i]);
    if constexpr (kMinimum) min[i] = hn::Min(score, min[i]);
  };
  int64_t k = 0;
  for (; k + 4 <= block.count; k += 4) {
    for (int i = 0; i < 4; ++i) add(k + i, i);
  }
  for (; k < block.count; ++k) add(k, 0);
  return {hn::Max(hn::Max(max[0], max[1]), hn::Max(max[2], max[3])),
          hn::Min(hn::Min(min[0], min[1]), hn::Min(min[2], min[3]))};
}

// output *= factor per lane. A factor of 1 leaves the bits alone, so lanes that did not ask for it are not touched.
void Rescale(const State& state, int64_t value_dim, const float* factor) {
  const FloatTag d;
  for (int64_t r = 0; r < state.width; r += kLanes) {
    const Vec f = hn::Load(d, factor + r);
    for (int64_t v = 0; v < value_dim; ++v) {
      float* o = state.output + v * state.width + r;
      hn::Store(hn::Mul(hn::Load(d, o), f), d, o);
    }
  }
}

// Moves the running maximum where the block asks for it. With kNotice, a score of -infinity makes the sum NaN.
template <bool kNotice>
void UpdateMaximum(const Block& block, const State& state) {
  const FloatTag d;
  HWY_ALIGN float factor[kMaxRows];
  bool rescale = false;
  for (int64_t r = 0; r < block.width; r += kLanes) {
    const Vec old_max = hn::Load(d, state.max + r);
    const Extremes scores = BlockExtremes<kNotice>(block, r);
    const auto grows = hn::Gt(scores.max, hn::Add(old_max, Broadcast(kLazyGrowth)));
    const Vec new_max = hn::IfThenElse(grows, scores.max, old_max);
    const Vec f = hn::IfThenElse(grows, Exp2(hn::Sub(old_max, new_max)), Broadcast(1.0f));
    hn::Store(f, d, factor + r);
    hn::Store(new_max, d, state.max + r);
    Vec sum = hn::Mul(hn::Load(d, state.sum + r), f);
    if constexpr (kNotice) sum = hn::Add(sum, hn::Mul(scores.min, hn::Zero(d)));
    hn::Store(sum, d, state.sum + r);
    rescale = rescale || !hn::AllFalse(d, grows);
  }
  if (rescale) Rescale(state, block.task.value_dim, factor);
}

// Turns scores into p in place and adds them up. With select_values, p of a masked key becomes -0: it adds nothing to
// the sum either and can be told from one that underflowed.
void Exponentiate(const Block& block, const State& state) {
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

void AddValues(const Block& block, const State& state) {
  const AttentionTask& task = block.task;
  Multiply<Walk::kAcrossRows>(task.value_dim, block.width / kLanes,
                              {task.values.Row<float>(block.first), task.values.stride}, {block.scores, block.width},
                              block.count, {state.output, block.width}, true);
}

// As AddValues, but a masked key's value is not even multiplied by zero.
void AddSelectedValues(const Block& block, const State& state) {
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

bool KeepsScores(const Panel& panel) { return panel.rows[0].kept_scores() != nullptr; }

// One block of keys from scores to outputs.
void AccumulateBlock(const Block& block, const State& state, bool surely_all_visible) {
  const AttentionTask& task = block.task;
  Visibility visible;
  if (!surely_all_visible) FindVisible(block, visible);
  if (!surely_all_visible && visible.none) {
    for (int64_t r = 0; r < block.panel.num_rows; ++r) {
      KeepMasked(block.panel.rows[r], block.first, block.first + block.count);
    }
    return;
  }
  ComputeScores(block);
  if (task.softcap != 0) ApplySoftcap(block);
  if (task.has_bias) AddBias(block);
  if (task.has_alibi) AddAlibi(block);
  const bool partial = !surely_all_visible && !visible.all;
  if (partial) ApplyMask(block, visible);
  if (KeepsScores(block.panel)) KeepScores(block);
  if (Notices(block) && !partial && HasPlainScores(task)) {
    UpdateMaximum<true>(block, state);
  } else {
    UpdateMaximum<false>(block, state);
  }
  Exponentiate(block, state);
  if (task.select_values) {
    AddSelectedValues(block, state);
  } else {
    AddValues(block, state);
  }
}

void Accumulate(const Panel& panel, int64_t begin, int64_t end, float* data) {
  const AttentionTask& task = *panel.task;
  const State state(panel, data);
  int64_t all_from = 0;
  int64_t all_to = task.key_mask == nullptr ? task.key_length : 0;
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    all_from = HWY_MAX(all_from, panel.rows[r].key_begin);
    all_to = HWY_MIN(all_to, panel.rows[r].key_end);
    if (panel.rows[r].mask != nullptr) all_to = 0;
  }
  for (int64_t first = begin; first < end; first += kKeyBlock) {
    const Block block{task, panel, first, HWY_MIN(kKeyBlock, end - first), state.width, panel.scratch};
    const bool all = first >= all_from && first + block.count <= all_to;
    AccumulateBlock(block, state, all);
  }
}

void Merge(const Panel& panel, const float* chunk_data, float* total_data) {
  const FloatTag d;
  const State chunk(panel, const_cast<float*>(chunk_data));
  const State total(panel, total_data);
  for (int64_t r = 0; r < total.width; r += kLanes) {
    const Vec chunk_max = hn::Load(d, chunk.max + r);
    const Vec total_max = hn::Load(d, total.max + r);
    const Vec max = hn::Max(chunk_max, total_max);
    const Vec subtract = FiniteMaximum(max);
    const Vec chunk_factor = Exp2(hn::Sub(chunk_max, subtract));
    const Vec total_factor = Exp2(hn::Sub(total_max, subtract));
    hn::Store(max, d, total.max + r);
    // The sum is row -1 of the output as far as merging goes.
    for (int64_t v = -1; v < panel.task->value_dim; ++v) {
      const int64_t at = v * total.width + r;
      const Vec scaled = hn::Mul(hn::Load(d, total.output + at), total_factor);
      hn::Store(hn::MulAdd(hn::Load(d, chunk.output + at), chunk_factor, scaled), d, total.output + at);
    }
  }
}

// Merges the sink into maximum and sum, and leaves in state.output the normalised outputs; returns in `inverse` 1 /
// sum, 0 where no key has a weight.
DoubtfulRows Normalize(const Panel& panel, const State& state, float* inverse) {
  const FloatTag d;
  HWY_ALIGN float sink[kMaxRows];
  HWY_ALIGN float probe[kMaxRows];
  for (int64_t r = 0; r < state.width; ++r) sink[r] = r < panel.num_rows ? panel.rows[r].sink : -kInfinity;
  for (int64_t r = 0; r < state.width; r += kLanes) {
    const Vec old_max = hn::Load(d, state.max + r);
    const Vec sinks = hn::Load(d, sink + r);
    const Vec max = hn::Max(sinks, old_max);
    const Vec subtract = FiniteMaximum(max);
    const Vec old_sum = hn::Load(d, state.sum + r);
    const auto no_keys = hn::Eq(old_sum, hn::Zero(d));  // Then the output is 0, even if the sink is NaN.
    const Vec factor = hn::IfThenZeroElse(no_keys, Exp2(hn::Sub(old_max, subtract)));
    const Vec sum = hn::MulAdd(old_sum, factor, Exp2(hn::Sub(sinks, subtract)));
    const Vec one_over = hn::IfThenZeroElse(no_keys, hn::Div(Broadcast(1.0f), sum));
    const Softmax alone = OfSinkAlone(sinks);
    hn::Store(hn::IfThenElse(no_keys, alone.max, max), d, state.max + r);
    hn::Store(hn::IfThenElse(no_keys, alone.sum, sum), d, state.sum + r);
    hn::Store(one_over, d, inverse + r);
    Vec zero_if_finite = hn::Zero(d);
    for (int64_t v = 0; v < panel.task->value_dim; ++v) {
      float* o = state.output + v * state.width + r;
      const Vec scaled = hn::Mul(hn::Load(d, o), factor);
      // Adding +0 turns a -0, which depends on how zeros were added, into +0.
      const Vec normal = hn::MulAdd(scaled, one_over, hn::Zero(d));
      zero_if_finite = hn::MulAdd(normal, hn::Zero(d), zero_if_finite);
      hn::Store(normal, d, o);
    }
    hn::Store(zero_if_finite, d, probe + r);
  }
  DoubtfulRows doubtful;
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    doubtful.not_finite |= std::uint64_t{probe[r] != 0 && state.sum[r] == state.sum[r]} << r;
    doubtful.nan_sum |= std::uint64_t{inverse[r] != inverse[r]} << r;
    doubtful.no_keys |= std::uint64_t{inverse[r] == 0} << r;
  }
  return doubtful;
}

// Writes the outputs of the rows from the transposed, normalised ones.
void WriteOutputs(const Panel& panel, const State& state) {
  const FloatTag d;
  const int64_t value_dim = panel.task->value_dim;
  for (int64_t r = 0; r < panel.num_rows; r += kLanes) {
    const int64_t lanes = HWY_MIN(kLanes, panel.num_rows - r);
    for (int64_t v = 0; v < value_dim; v += kLanes) {
      const int64_t count = HWY_MIN(kLanes, value_dim - v);
      Vec tile[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        tile[i] = i < count ? hn::Load(d, state.output + (v + i) * state.width + r) : hn::Zero(d);
      }
      Transpose(tile);
      for (int64_t i = 0; i < lanes; ++i) StoreFirst(tile[i], panel.rows[r + i].output + v, count);
    }
  }
}

DoubtfulRows Finish(const Panel& panel, float* data) {
  const State state(panel, data);
  HWY_ALIGN float inverse[kMaxRows];
  const DoubtfulRows doubtful = Normalize(panel, state, inverse);
  if (panel.rows[0].output != nullptr) WriteOutputs(panel, state);
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const QueryRow& row = panel.rows[r];
    if (row.log_sum_exp != nullptr) *row.log_sum_exp = LogSumExp(state.max[r], state.sum[r]);
    FinishKeptScores(row, panel.task->key_length, state.max[r], inverse[r]);
  }
  return doubtful;
}

}  // namespace

const RowKernels& QueryLanes() {
  static constexpr RowKernels kKernels = {kMaxRows, false,      kLanes, PackedSize, StateSize, ScratchSize,
                                          Pack,     LargestKey, Reset,  Accumulate, Merge,     Finish};
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
