// The online softmax with keys in lanes: what happens to scores before it, running maximum and sum, one block after the
// other, merging, and the results. Included once per instruction set.
#include "core/kernels/key_block-inl.h"

#if defined(ATTEND_CORE_KERNELS_KEY_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_KEY_SOFTMAX_INL_H_
#undef ATTEND_CORE_KERNELS_KEY_SOFTMAX_INL_H_
#else
#define ATTEND_CORE_KERNELS_KEY_SOFTMAX_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

int64_t StateSize(const AttentionTask& task, int64_t num_rows) {
  return State::kHead + num_rows * Padded(task.value_dim);
}

void Reset(const Panel& panel, float* data) {
  const State state(panel, data);
  for (int64_t r = 0; r < kMaxRows; ++r) {
    state.max[r] = -kInfinity;
    state.sum[r] = state.rounded[r] = 0;
  }
  for (int64_t i = 0; i < panel.num_rows * state.stride; ++i) state.output[i] = 0;
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
    // Counted from the block's first key, because float32 holds no position beyond 2^24 exactly.
    const Vec position = Broadcast(static_cast<float>(row.position - block.first));
    const Vec distance = hn::Abs(hn::Sub(position, hn::Iota(d, static_cast<float>(k))));
    score = hn::MulAdd(Broadcast(row.alibi), distance, score);
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
  state.rounded[r] *= factor;
  float* output = state.output + r * state.stride;
  for (int64_t v = 0; v < block.task.value_dim; ++v) output[v] *= factor;
}

// Turns a row's scores into p; -0 marks masked keys as in query_lanes.cc.
void Exponentiate(const Block& block, const State& state, int64_t r, float* scores) {
  const FloatTag d;
  const Vec subtract = FiniteMaximum(Broadcast(state.max[r]));
  for (int64_t k = 0; k < block.count; k += kLanes) {
    const Vec score = hn::Load(d, scores + k);
    Vec p = Exp2(hn::Sub(score, subtract));
    if (block.task.select_values) p = hn::IfThenElse(hn::Eq(score, Broadcast(-kInfinity)), Broadcast(-0.0f), p);
    hn::Store(p, d, scores + k);
  }
}

template <int kRows>
HWY_INLINE void AddWeightsOfRows(const Block& block, int64_t row, float* sums) {
  const float* weights = block.scratch.scores + row * kKeyBlock;
  float sum[kRows];
  for (int r = 0; r < kRows; ++r) sum[r] = sums[row + r];
  for (int64_t k = 0; k < block.count; ++k) {
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) sum[r] += weights[r * kKeyBlock + k];
  }
  for (int r = 0; r < kRows; ++r) sums[row + r] = sum[r];
}

// Adds p of each row to `sums` in ascending order, several rows side by side because each waits for its last sum.
void AddWeights(const Block& block, float* sums) {
  int64_t row = 0;
  for (; row + 4 <= block.panel.num_rows; row += 4) AddWeightsOfRows<4>(block, row, sums);
  for (; row + 2 <= block.panel.num_rows; row += 2) AddWeightsOfRows<2>(block, row, sums);
  if (row < block.panel.num_rows) AddWeightsOfRows<1>(block, row, sums);
}

// One block of keys from scores to outputs. `Products` has the two products.
template <class Products>
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
  Products::ComputeScores(block);
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const QueryRow& row = panel.rows[r];
    float* scores = block.scratch.scores + r * kKeyBlock;
    const float block_max = FinishScores(block, row, visible[r], scores);
    float* kept = row.kept_scores();
    if (kept != nullptr) std::memcpy(kept + block.first, scores, static_cast<size_t>(block.count) * sizeof(float));
    UpdateMaximum(block, state, r, block_max);
    Exponentiate(block, state, r, scores);
  }
  AddWeights(block, state.sum);
  Products::AddValues(block, state);
}

template <class Products>
void Accumulate(const Panel& panel, int64_t begin, int64_t end, float* data) {
  const State state(panel, data);
  for (int64_t first = begin; first < end; first += kKeyBlock) {
    const Block block{*panel.task, panel, first, HWY_MIN(kKeyBlock, end - first), Scratch(panel)};
    AccumulateBlock<Products>(block, state);
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
    const auto merged = [&](const float* chunk_sum, const float* total_sum) {
      return hn::GetLane(
          hn::MulAdd(Broadcast(chunk_sum[r]), chunk_factor, hn::Mul(Broadcast(total_sum[r]), total_factor)));
    };
    total.max[r] = hn::GetLane(max);
    total.sum[r] = merged(chunk.sum, total.sum);
    total.rounded[r] = merged(chunk.rounded, total.rounded);
    for (int64_t v = r * total.stride; v < (r + 1) * total.stride; v += kLanes) {
      const Vec scaled = hn::Mul(hn::LoadU(d, total.output + v), total_factor);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, chunk.output + v), chunk_factor, scaled), d, total.output + v);
    }
  }
}

// Row r: sink, normalisation, outputs. Whether it is to be doubted is bit 0.
template <class Products>
DoubtfulRows FinishRow(const AttentionTask& task, const QueryRow& row, const State& state, int64_t r) {
  const float row_sum = state.sum[r];
  const float* output = state.output + r * state.stride;
  const FloatTag d;
  const Vec old_max = Broadcast(state.max[r]);
  const Vec sink = Broadcast(row.sink);
  const Vec max = hn::Max(sink, old_max);
  const Vec subtract = FiniteMaximum(max);
  const auto no_keys = hn::Eq(Broadcast(row_sum), hn::Zero(d));  // Then the output is 0, even if the sink is NaN.
  const Vec factor = hn::IfThenZeroElse(no_keys, Exp2(hn::Sub(old_max, subtract)));
  const Vec sum = hn::MulAdd(Broadcast(row_sum), factor, Exp2(hn::Sub(sink, subtract)));
  const Vec one_over = hn::IfThenZeroElse(no_keys, hn::Div(Broadcast(1.0f), sum));
  Vec per_weight = one_over;
  if constexpr (Products::kRounds) {
    const Vec rounded = hn::MulAdd(Broadcast(state.rounded[r]), factor, Exp2(hn::Sub(sink, subtract)));
    per_weight = hn::IfThenZeroElse(no_keys, hn::Div(Broadcast(1.0f), rounded));
  }
  Vec zero_if_finite = hn::Zero(d);
  for (int64_t v = 0; v < task.value_dim; v += kLanes) {
    const int64_t count = HWY_MIN(kLanes, task.value_dim - v);
    const Vec normal = hn::MulAdd(hn::Mul(LoadFirst(output + v, count), factor), per_weight, hn::Zero(d));
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

template <class Products>
DoubtfulRows Finish(const Panel& panel, float* data) {
  const State state(panel, data);
  DoubtfulRows doubtful;
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const DoubtfulRows row = FinishRow<Products>(*panel.task, panel.rows[r], state, r);
    doubtful.not_finite |= row.not_finite << r;
    doubtful.nan_sum |= row.nan_sum << r;
    doubtful.no_keys |= row.no_keys << r;
  }
  return doubtful;
}

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_KEY_SOFTMAX_INL_H_
