// What the fast kernels with queries in lanes share, whatever multiplies: how queries are packed, and how scores become
// pairs of weights. Included for AVX-512 alone.
#ifndef ATTEND_CORE_KERNELS_FAST_QUERIES_INL_H_
#define ATTEND_CORE_KERNELS_FAST_QUERIES_INL_H_

#include "core/kernels/dot-inl.h"
#include "core/kernels/query_softmax-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// Pairs of `count` numbers, filled up by pairs of zeros to a multiple.
template <int64_t kMultiple>
int64_t NumPairs(int64_t count) {
  return RoundUp((count + 1) / 2, kMultiple);
}

// Pairs of head dimensions are [pairs][width].
template <int64_t kMultiple>
int64_t PackedSize(const AttentionTask& task, int64_t num_rows) {
  return NumPairs<kMultiple>(task.head_dim) * Width(num_rows);
}

template <int64_t kMultiple>
PackedQueries Pack(const Panel& panel) {
  const AttentionTask& task = *panel.task;
  const int64_t width = Width(panel.num_rows);
  auto* to = reinterpret_cast<std::uint32_t*>(panel.packed);
  std::memset(to, 0, static_cast<size_t>(NumPairs<kMultiple>(task.head_dim) * width) * sizeof(*to));
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t r = 0; r < panel.num_rows; ++r) {
    const float* query = panel.rows[r].query;
    AddMagnitudes(query, task.head_dim, magnitudes);
    for (int64_t s = 0; s < task.head_dim / 2; ++s) to[s * width + r] = PairOfFloats(query + 2 * s);
  }
  // Products are scaled after they have been added up.
  return {false, Largest(magnitudes) * HWY_MAX(1.0f, std::fabs(task.query_scale))};
}

inline float LargestKey(const AttentionTask& task, int64_t begin, int64_t end) {
  Magnitudes magnitudes = NoMagnitudes();
  for (int64_t j = begin; j < end; ++j) AddMagnitudes(task.keys.Row<BFloat16>(j), task.head_dim, magnitudes);
  return Largest(magnitudes);
}

// Of the products, what lies between them.
template <int64_t kMultiple>
struct FastWeights {
  static constexpr bool kRounds = true;

  // Turns scores of two keys into a pair of weights, in place from the front: pair s is row s. Marks masked keys, and
  // those that fill a multiple of pairs up, as ExactProducts does.
  static HWY_NOINLINE void Exponentiate(const Block& block, const State& state) {
    const FloatTag d;
    const bool mark = block.task.select_values;
    for (int64_t r = 0; r < block.width; r += kLanes) {
      const Vec subtract = FiniteMaximum(hn::Load(d, state.max + r));
      const auto weight = [&](int64_t k) __attribute__((always_inline)) {
        if (k >= block.count) return mark ? Broadcast(-0.0f) : hn::Zero(d);
        const Vec score = hn::Load(d, block.scores + k * block.width + r);
        const Vec p = Exp2(hn::Sub(score, subtract));
        return mark ? hn::IfThenElse(hn::Eq(score, Broadcast(-kInfinity)), Broadcast(-0.0f), p) : p;
      };
      Vec sum = hn::Load(d, state.sum + r);
      Vec rounded = hn::Load(d, state.rounded + r);
      for (int64_t s = 0; s < NumPairs<kMultiple>(block.count); ++s) {
        const Vec first = weight(2 * s);
        const Vec second = weight(2 * s + 1);
        sum = hn::Add(hn::Add(sum, first), second);
        const Pairs pairs = RoundToPairs(first, second);
        rounded = hn::Add(hn::Add(rounded, FirstOf(pairs)), SecondOf(pairs));
        _mm512_storeu_si512(block.scores + s * block.width + r, pairs);
      }
      hn::Store(sum, d, state.sum + r);
      hn::Store(rounded, d, state.rounded + r);
    }
  }
};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES

#endif  // ATTEND_CORE_KERNELS_FAST_QUERIES_INL_H_
