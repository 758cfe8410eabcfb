// Attention with keys in vector lanes: for a few rows per key/value head, as in decoding, where reading keys and values
// once is all that matters.
//
// A block of keys is transposed in registers into the first-level cache; scores are then the same chains over the head
// dimension as with queries in lanes, a broadcast query element times a vector of keys. The sum over values has value
// dimensions in lanes and broadcasts p: again the same chains. So both files give the same bits.
#include "core/base/round.h"
#include "core/kernels/kernel_table.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/key_lanes.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kMaxRows = 8;
constexpr int64_t kSlab = 64;  // Head dimensions that are transposed at a time: a slab of kKeyBlock keys is 16 KiB.

int64_t Padded(int64_t size) { return RoundUp<int64_t>(size, 16); }  // Rows of floats start on a cache line.

// A state is [maximum: kMaxRows][sum: kMaxRows][output: rows x value_dim, padded].
struct State {
  State(const Panel& panel, float* data)
      : stride(Padded(panel.task->value_dim)), max(data), sum(data + kMaxRows), output(data + 2 * kMaxRows) {}
  int64_t stride;
  float* max;
  float* sum;
  float* output;
};

// The memory behind panel.scratch.
struct Scratch {
  explicit Scratch(const Panel& panel)
      : scores(panel.scratch), keys(scores + kMaxRows * kKeyBlock), values(keys + kSlab * kKeyBlock) {}
  float* scores;  // [rows][kKeyBlock]
  float* keys;    // [kSlab][kKeyBlock]
  float* values;  // [kKeyBlock][padded value_dim], used where rows of values do not end with a vector.
};

int64_t PackedSize(const AttentionTask& task, int64_t num_rows) { return num_rows * task.head_dim; }
int64_t StateSize(const AttentionTask& task, int64_t num_rows) {
  return 2 * kMaxRows + num_rows * Padded(task.value_dim);
}
int64_t ScratchSize(const AttentionTask& task, int64_t) {
  const int64_t values = task.value_dim % kLanes == 0 ? 0 : kKeyBlock * Padded(task.value_dim);
  return (kMaxRows + kSlab) * kKeyBlock + values;
}

PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  float* to = panel.packed;
  for (int64_t r = 0; r < panel.num_rows; ++r, to += task.head_dim) {
    for (int64_t d = 0; d < task.head_dim; ++d) to[d] = panel.rows[r].query[d] * task.query_scale;
  }
  return MakePackedQueries(panel);
}

void Reset(const Panel& panel, float* data) {
  const State state(panel, data);
  for (int64_t r = 0; r < kMaxRows; ++r) {
    state.max[r] = -kInfinity;
    state.sum[r] = 0;
  }
  for (int64_t i = 0; i < panel.num_rows * state.stride; ++i) state.output[i] = 0;
}

struct Block {
  const AttentionTask& task;
  const Panel& panel;
  int64_t first;
  int64_t count;
  Scratch scratch;
};

// Keys are prefetched ahead of their use, the lines of a tile with each tile, in the order of memory where rows are
// dense: they are read side by side, which no hardware prefetcher follows. Into the second-level cache, because more
// lines may be pending there than to the first. A processor drops prefetches when too many are pending, and with one
// row arithmetic issues them faster than memory serves them: then every line is requested twice. Lines that caches hold
// need no second request.
template <bool kTwice>
class KeysAhead {
 public:
  // With the keys from `k` on.
  KeysAhead(const Block& block, int64_t k)
      : stride_(block.task.key_stride), dense_(block.task.key_stride == block.task.head_dim) {
    const int64_t left = block.task.key_length - kLanes - block.first;
    const float* keys = block.task.Key(block.first);
    first_ = keys + HWY_MIN(k + (kTwice ? kFar : kKeyBlock), left) * stride_;
    second_ = keys + HWY_MIN(k + kNear, left) * stride_;
  }

  // With the tile of columns from `column` on.
  HWY_INLINE void Prefetch(int64_t column) const {
    const int64_t begin = dense_ ? column * kLanes : column;
    const int64_t step = dense_ ? kLanes : stride_;
    HWY_UNROLL(16)
    for (int64_t i = 0; i < kLanes; ++i) __builtin_prefetch(first_ + begin + i * step, 0, 2);
    if constexpr (!kTwice) return;
    HWY_UNROLL(16)
    for (int64_t i = 0; i < kLanes; ++i) __builtin_prefetch(second_ + begin + i * step, 0, 2);
  }

 private:
  static constexpr int64_t kFar = 96, kNear = 48;  // Keys. Measured on Zen 4.

  int64_t stride_;
  bool dense_;
  const float* first_;
  const float* second_;
};

HWY_INLINE Vec AddProducts(const float* query, const Vec (&tile)[kLanes], Vec sum) {
  HWY_UNROLL(16)
  for (int64_t i = 0; i < kLanes; ++i) sum = hn::MulAdd(Broadcast(query[i]), tile[i], sum);
  return sum;
}

// Scores of kLanes keys from `k` on, for one row, whose sum stays in a register, or for any number of them. What is
// transposed is used straight from registers.
template <bool kOneRow, bool kTwice>
HWY_NOINLINE void ComputeWholeScores(const Block& block, int64_t k) {
  const FloatTag d;
  const AttentionTask& task = block.task;
  const float* key = task.Key(block.first + k);
  const KeysAhead<kTwice> ahead(block, k);
  Vec only = hn::Zero(d);
  for (int64_t c = 0; c < task.head_dim; c += kLanes) {
    Vec tile[kLanes];
    LoadTransposed([key, &task](int64_t i) { return key + i * task.key_stride; }, c, tile);
    ahead.Prefetch(c);
    const float* query = block.panel.packed + c;
    float* scores = block.scratch.scores + k;
    if constexpr (kOneRow) {
      only = AddProducts(query, tile, only);
      continue;
    }
    for (int64_t r = 0; r < block.panel.num_rows; ++r, query += task.head_dim, scores += kKeyBlock) {
      hn::Store(AddProducts(query, tile, c == 0 ? hn::Zero(d) : hn::Load(d, scores)), d, scores);
    }
  }
  if constexpr (kOneRow) hn::Store(only, d, block.scratch.scores + k);
}

// Scores of a whole block whose head dimensions fill vectors.
HWY_NOINLINE void ComputeWholeScores(const Block& block) {
  const auto compute = block.panel.num_rows == 1 && block.task.beyond_caches ? ComputeWholeScores<true, true>
                       : block.panel.num_rows == 1                           ? ComputeWholeScores<true, false>
                                                                             : ComputeWholeScores<false, false>;
  for (int64_t k = 0; k < kKeyBlock; k += kLanes) compute(block, k);
}

// The same chains for any block: keys are transposed to the first-level cache a slab at a time.
void ComputePartialScores(const Block& block) {
  const AttentionTask& task = block.task;
  for (int64_t d = 0; d < task.head_dim; d += kSlab) {
    const int64_t depth = HWY_MIN(kSlab, task.head_dim - d);
    for (int64_t k = 0; k < RoundUp(block.count, kLanes); k += kLanes) {
      const float* key = task.Key(block.first + k) + d;
      const int64_t stride = task.key_stride;
      PackTransposed([key, stride](int64_t i) { return key + i * stride; }, block.count - k, depth, 1.0f,
                     block.scratch.keys + k, kKeyBlock);
    }
    Multiply<Walk::kAlongRows>(block.panel.num_rows, RoundUp(block.count, kLanes) / kLanes,
                               {block.panel.packed + d, task.head_dim}, {block.scratch.keys, kKeyBlock}, depth,
                               {block.scratch.scores, kKeyBlock}, d > 0);
  }
}

void ComputeScores(const Block& block) {
  if (block.count == kKeyBlock && block.task.head_dim % kLanes == 0) {
    ComputeWholeScores(block);
  } else {
    ComputePartialScores(block);
  }
}

// Softcap, bias, ALiBi and mask for one vector of keys of one row; `sees` has the keys' bits lowest.
HWY_INLINE Vec ModifyScores(const Block& block, const QueryRow& row, int64_t k, std::uint64_t sees, Vec score) {
  const FloatTag d;
  const AttentionTask& task = block.task;
  const int64_t valid = block.count - k;
  if (task.notice_overflow) score = NanIfInfinite(score);
  if (task.softcap != 0) score = hn::Mul(Broadcast(task.softcap), Tanh(score));
  if (task.has_bias) {
    const Vec bias = task.bias_stride == 0 ? Broadcast(*row.bias) : LoadFirst(row.bias + block.first + k, valid);
    score = hn::MulAdd(bias, Broadcast(kLog2E), score);
  }
  if (task.has_alibi) {
    const Vec key = hn::Iota(d, static_cast<float>(block.first + k));
    score = hn::MulAdd(Broadcast(row.alibi), hn::Abs(hn::Sub(Broadcast(row.position), key)), score);
  }
#if HWY_TARGET == HWY_SCALAR
  return sees & 1 ? score : Broadcast(-kInfinity);
#else
  std::uint8_t bits[8];
  std::memcpy(bits, &sees, sizeof(bits));
  return hn::IfThenElse(hn::LoadMaskBits(d, bits), score, Broadcast(-kInfinity));
#endif
}

// Applies the rules to a row's scores and returns their maximum.
HWY_INLINE float FinishScores(const Block& block, const QueryRow& row, std::uint64_t visible, float* scores) {
  const FloatTag d;
  Vec max = Broadcast(-kInfinity);
  for (int64_t k = 0; k < block.count; k += kLanes) {
    const Vec score = ModifyScores(block, row, k, visible >> k, hn::Load(d, scores + k));
    max = hn::Max(score, max);
    hn::Store(score, d, scores + k);
  }
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

// exp2 of one number, with the vector's bits.
HWY_INLINE float ScalarExp2(float x) { return hn::GetLane(Exp2(Broadcast(x))); }

void UpdateMaximum(const Block& block, const State& state, int64_t r, float block_max) {
  if (!(block_max > state.max[r] + kLazyGrowth)) return;
  const float factor = ScalarExp2(state.max[r] - block_max);
  state.max[r] = block_max;
  state.sum[r] *= factor;
  float* output = state.output + r * state.stride;
  for (int64_t v = 0; v < block.task.value_dim; ++v) output[v] *= factor;
}

// Turns a row's scores into p and adds them up in ascending order; -0 marks masked keys as in query_lanes.cc.
void Exponentiate(const Block& block, const State& state, int64_t r, float* scores) {
  const FloatTag d;
  const Vec subtract = FiniteMaximum(Broadcast(state.max[r]));
  for (int64_t k = 0; k < block.count; k += kLanes) {
    const Vec score = hn::Load(d, scores + k);
    Vec p = Exp2(hn::Sub(score, subtract));
    if (block.task.select_values) p = hn::IfThenElse(hn::Eq(score, Broadcast(-kInfinity)), Broadcast(-0.0f), p);
    hn::Store(p, d, scores + k);
  }
  float sum = state.sum[r];
  for (int64_t k = 0; k < block.count; ++k) sum += scores[k];
  state.sum[r] = sum;
}

// Adds kVectors vectors of value dimensions from `v` on of all keys of a block to kRows rows from `row` on.
template <int kRows, int kVectors>
HWY_INLINE void AddTile(const Block& block, const State& state, const float* ahead, int64_t row, int64_t v) {
  const FloatTag d;
  const int64_t stride = block.task.value_stride;
  const float* value = block.task.Value(block.first) + v;
  const float* p = block.scratch.scores + row * kKeyBlock;
  float* output = state.output + row * state.stride + v;
  Vec sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::LoadU(d, output + r * state.stride + i * kLanes);
  }
  for (int64_t k = 0; k < kKeyBlock; ++k) {
    HWY_UNROLL(8)
    for (int i = 0; i < kVectors; ++i) {
      if (row == 0) __builtin_prefetch(ahead + k * stride + v + i * kLanes, 0, 2);
      const Vec column = hn::LoadU(d, value + k * stride + i * kLanes);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) sum[r][i] = hn::MulAdd(Broadcast(p[r * kKeyBlock + k]), column, sum[r][i]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int i = 0; i < kVectors; ++i) hn::StoreU(sum[r][i], d, output + r * state.stride + i * kLanes);
  }
}

// All value dimensions for kRows rows, in tiles as wide as the registers allow.
template <int kRows>
HWY_NOINLINE void AddRows(const Block& block, const State& state, const float* ahead, int64_t row) {
  constexpr int kMost = HWY_MIN(8, (kManyRegisters ? 16 : 8) / kRows);
  int64_t v = 0;
  for (; v + kMost * kLanes <= block.task.value_dim; v += kMost * kLanes) {
    AddTile<kRows, kMost>(block, state, ahead, row, v);
  }
  if constexpr (kMost > 4) {
    for (; v + 4 * kLanes <= block.task.value_dim; v += 4 * kLanes) AddTile<kRows, 4>(block, state, ahead, row, v);
  }
  for (; v < block.task.value_dim; v += kLanes) AddTile<kRows, 1>(block, state, ahead, row, v);
}

// What AddTile asks for with this block. Rows of values that are read whole, one after the other, are followed by
// hardware prefetchers, which only have to be kept going; columns of them are asked for a block ahead.
const float* ValuesAhead(const Block& block) {
  const AttentionTask& task = block.task;
  const bool whole_rows = block.panel.num_rows <= (kManyRegisters ? 2 : 1) &&
                          (task.value_dim == 8 * kLanes || task.value_dim == 4 * kLanes);
  const int64_t left = HWY_MAX(task.key_length - kKeyBlock - block.first, 0);
  return task.Value(block.first) + HWY_MIN(whole_rows ? int64_t{16} : kKeyBlock, left) * task.value_stride;
}

// The values of a whole block whose value dimensions fill vectors.
void AddWholeValues(const Block& block, const State& state) {
  const float* ahead = ValuesAhead(block);
  const int64_t rows = block.panel.num_rows;
  int64_t row = 0;
  if constexpr (kManyRegisters) {
    for (; row + 8 <= rows; row += 8) AddRows<8>(block, state, ahead, row);
  }
  for (; row + 4 <= rows; row += 4) AddRows<4>(block, state, ahead, row);
  for (; row + 2 <= rows; row += 2) AddRows<2>(block, state, ahead, row);
  for (; row < rows; ++row) AddRows<1>(block, state, ahead, row);
}

// The same chains for any block.
void AddPartialValues(const Block& block, const State& state) {
  const AttentionTask& task = block.task;
  const FloatTag d;
  const float* values = task.Value(block.first);
  int64_t stride = task.value_stride;
  if (task.value_dim % kLanes != 0) {  // A vector would reach beyond the end of a row.
    stride = state.stride;
    for (int64_t k = 0; k < block.count; ++k) {
      for (int64_t v = 0; v < task.value_dim; v += kLanes) {
        const Vec piece = LoadFirst(values + k * task.value_stride + v, task.value_dim - v);
        hn::StoreU(piece, d, block.scratch.values + k * stride + v);
      }
    }
    values = block.scratch.values;
  }
  Multiply<Walk::kAlongRows>(block.panel.num_rows, RoundUp(task.value_dim, kLanes) / kLanes,
                             {block.scratch.scores, kKeyBlock}, {values, stride}, block.count,
                             {state.output, state.stride}, true);
}

void AddValues(const Block& block, const State& state) {
  if (block.count == kKeyBlock && block.task.value_dim % kLanes == 0) {
    AddWholeValues(block, state);
  } else {
    AddPartialValues(block, state);
  }
}

void AddSelectedValues(const Block& block, const State& state) {
  const FloatTag d;
  const AttentionTask& task = block.task;
  for (int64_t k = 0; k < block.count; ++k) {
    const float* value = task.Value(block.first + k);
    for (int64_t r = 0; r < block.panel.num_rows; ++r) {
      const float p = block.scratch.scores[r * kKeyBlock + k];
      if (p == 0 && std::signbit(p)) continue;
      for (int64_t v = 0; v < task.value_dim; v += kLanes) {
        float* o = state.output + r * state.stride + v;
        hn::StoreU(hn::MulAdd(Broadcast(p), LoadFirst(value + v, task.value_dim - v), hn::LoadU(d, o)), d, o);
      }
    }
  }
}

// One block of keys from scores to outputs.
void AccumulateBlock(const Block& block, const State& state) {
  const Panel& panel = block.panel;
  std::uint64_t visible[kMaxRows];
  const std::uint64_t unmasked = KeyMaskWord(block.task, block.first, block.count);
  std::uint64_t any = 0;
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    visible[r] = VisibleWord(block.task, panel.rows[r], unmasked, block.first, block.count);
    any |= visible[r];
  }
  if (any == 0) {
    for (int64_t r = 0; r < panel.num_rows; ++r) {
      KeepMasked(panel.rows[r], block.first, block.first + block.count);
    }
    return;
  }
  ComputeScores(block);
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const QueryRow& row = panel.rows[r];
    float* scores = block.scratch.scores + r * kKeyBlock;
    const float block_max = FinishScores(block, row, visible[r], scores);
    float* kept = row.kept_scores();
    if (kept != nullptr) std::memcpy(kept + block.first, scores, static_cast<size_t>(block.count) * sizeof(float));
    UpdateMaximum(block, state, r, block_max);
    Exponentiate(block, state, r, scores);
  }
  if (block.task.select_values) {
    AddSelectedValues(block, state);
  } else {
    AddValues(block, state);
  }
}

void Accumulate(const Panel& panel, int64_t begin, int64_t end, float* data) {
  const State state(panel, data);
  for (int64_t first = begin; first < end; first += kKeyBlock) {
    const Block block{*panel.task, panel, first, HWY_MIN(kKeyBlock, end - first), Scratch(panel)};
    AccumulateBlock(block, state);
  }
}

void Merge(const Panel& panel, const float* chunk_data, float* total_data) {
  const FloatTag d;
  const State chunk(panel, const_cast<float*>(chunk_data));
  const State total(panel, total_data);
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const Vec chunk_max = Broadcast(chunk.max[r]);
    const Vec total_max = Broadcast(total.max[r]);
    const Vec max = hn::Max(chunk_max, total_max);
    const Vec subtract = FiniteMaximum(max);
    const Vec chunk_factor = Exp2(hn::Sub(chunk_max, subtract));
    const Vec total_factor = Exp2(hn::Sub(total_max, subtract));
    const Vec sum = hn::MulAdd(Broadcast(chunk.sum[r]), chunk_factor, hn::Mul(Broadcast(total.sum[r]), total_factor));
    total.max[r] = hn::GetLane(max);
    total.sum[r] = hn::GetLane(sum);
    for (int64_t v = r * total.stride; v < (r + 1) * total.stride; v += kLanes) {
      const Vec scaled = hn::Mul(hn::LoadU(d, total.output + v), total_factor);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, chunk.output + v), chunk_factor, scaled), d, total.output + v);
    }
  }
}

// One row: sink, normalisation, outputs. Whether it is to be doubted is bit 0.
DoubtfulRows FinishRow(const AttentionTask& task, const QueryRow& row, float row_max, float row_sum,
                       const float* output) {
  const FloatTag d;
  const Vec old_max = Broadcast(row_max);
  const Vec sink = Broadcast(row.sink);
  const Vec max = hn::Max(sink, old_max);
  const Vec subtract = FiniteMaximum(max);
  const auto no_keys = hn::Eq(Broadcast(row_sum), hn::Zero(d));  // Then the output is 0, even if the sink is NaN.
  const Vec factor = hn::IfThenZeroElse(no_keys, Exp2(hn::Sub(old_max, subtract)));
  const Vec sum = hn::MulAdd(Broadcast(row_sum), factor, Exp2(hn::Sub(sink, subtract)));
  const Vec one_over = hn::IfThenZeroElse(no_keys, hn::Div(Broadcast(1.0f), sum));
  Vec zero_if_finite = hn::Zero(d);
  for (int64_t v = 0; v < task.value_dim; v += kLanes) {
    const int64_t count = HWY_MIN(kLanes, task.value_dim - v);
    const Vec normal = hn::MulAdd(hn::Mul(LoadFirst(output + v, count), factor), one_over, hn::Zero(d));
    zero_if_finite = hn::MulAdd(normal, hn::Zero(d), zero_if_finite);
    if (row.output != nullptr) StoreFirst(normal, row.output + v, count);
  }
  const Softmax alone = OfSinkAlone(sink);
  const float final_max = hn::GetLane(hn::IfThenElse(no_keys, alone.max, max));
  const float final_sum = hn::GetLane(hn::IfThenElse(no_keys, alone.sum, sum));
  if (row.log_sum_exp != nullptr) *row.log_sum_exp = LogSumExp(final_max, final_sum);
  FinishKeptScores(row, task.key_length, final_max, hn::GetLane(one_over));
  const bool finite = hn::AllTrue(d, hn::Eq(zero_if_finite, hn::Zero(d)));
  const float inverse = hn::GetLane(one_over);
  return {std::uint64_t{!finite && final_sum == final_sum}, std::uint64_t{inverse != inverse},
          std::uint64_t{inverse == 0}};
}

DoubtfulRows Finish(const Panel& panel, float* data) {
  const State state(panel, data);
  DoubtfulRows doubtful;
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const float* output = state.output + r * state.stride;
    const DoubtfulRows row = FinishRow(*panel.task, panel.rows[r], state.max[r], state.sum[r], output);
    doubtful.not_finite |= row.not_finite << r;
    doubtful.nan_sum |= row.nan_sum << r;
    doubtful.no_keys |= row.no_keys << r;
  }
  return doubtful;
}

}  // namespace

const RowKernels& KeyLanes() {
  static constexpr RowKernels kKernels = {kMaxRows, 1,     PackedSize, StateSize, ScratchSize, Pack,
                                          nullptr,  Reset, Accumulate, Merge,     Finish};
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
