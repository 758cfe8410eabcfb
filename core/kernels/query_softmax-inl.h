// The online softmax with queries in lanes: running maximum and sum, one block after the other, merging, and the
// results. Included once per instruction set.
#include "core/kernels/query_block-inl.h"

#if defined(ATTEND_CORE_KERNELS_QUERY_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_QUERY_SOFTMAX_INL_H_
#undef ATTEND_CORE_KERNELS_QUERY_SOFTMAX_INL_H_
#else
#define ATTEND_CORE_KERNELS_QUERY_SOFTMAX_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

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
template <class Products, bool kNotice>
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
    if constexpr (Products::kRounds) hn::Store(hn::Mul(hn::Load(d, state.rounded + r), f), d, state.rounded + r);
    rescale = rescale || !hn::AllFalse(d, grows);
  }
  if (rescale) Rescale(state, block.task.value_dim, factor);
}

bool KeepsScores(const Panel& panel) { return panel.rows[0].kept_scores() != nullptr; }

// One block of keys from scores to outputs. `Products` has the two products and what lies between them.
template <class Products>
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
  Products::ComputeScores(block);
  if (task.softcap != 0) ApplySoftcap(block);
  if (task.has_bias) AddBias(block);
  if (task.has_alibi) AddAlibi(block);
  const bool partial = !surely_all_visible && !visible.all;
  if (partial) ApplyMask(block, visible);
  if (KeepsScores(block.panel)) KeepScores(block);
  if (Notices(block) && !partial && HasPlainScores(task)) {
    UpdateMaximum<Products, true>(block, state);
  } else {
    UpdateMaximum<Products, false>(block, state);
  }
  Products::Exponentiate(block, state);
  if (task.select_values) {
    Products::AddSelectedValues(block, state);
  } else {
    Products::AddValues(block, state);
  }
}

template <class Products>
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
    AccumulateBlock<Products>(block, state, all);
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
    // The sums are rows -2 and -1 of the output as far as merging goes.
    for (int64_t v = -2; v < panel.task->value_dim; ++v) {
      const int64_t at = v * total.width + r;
      const Vec scaled = hn::Mul(hn::Load(d, total.output + at), total_factor);
      hn::Store(hn::MulAdd(hn::Load(d, chunk.output + at), chunk_factor, scaled), d, total.output + at);
    }
  }
}

// Merges the sink into maximum and sum, and leaves in state.output the normalised outputs; returns in `inverse` 1 /
// sum, 0 where no key has a weight.
template <class Products>
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
    Vec per_weight = one_over;
    if constexpr (Products::kRounds) {
      const Vec rounded = hn::MulAdd(hn::Load(d, state.rounded + r), factor, Exp2(hn::Sub(sinks, subtract)));
      per_weight = hn::IfThenZeroElse(no_keys, hn::Div(Broadcast(1.0f), rounded));
    }
    Vec zero_if_finite = hn::Zero(d);
    for (int64_t v = 0; v < panel.task->value_dim; ++v) {
      float* o = state.output + v * state.width + r;
      const Vec scaled = hn::Mul(hn::Load(d, o), factor);
      // Adding +0 turns a -0, which depends on how zeros were added, into +0.
      const Vec normal = hn::MulAdd(scaled, per_weight, hn::Zero(d));
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

template <class Products>
DoubtfulRows Finish(const Panel& panel, float* data) {
  const State state(panel, data);
  HWY_ALIGN float inverse[kMaxRows];
  const DoubtfulRows doubtful = Normalize<Products>(panel, state, inverse);
  if (panel.rows[0].output != nullptr) WriteOutputs(panel, state);
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const QueryRow& row = panel.rows[r];
    if (row.log_sum_exp != nullptr) *row.log_sum_exp = LogSumExp(state.max[r], state.sum[r]);
    FinishKeptScores(row, panel.task->key_length, state.max[r], inverse[r]);
  }
  return doubtful;
}

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_QUERY_SOFTMAX_INL_H_
