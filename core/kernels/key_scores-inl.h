// Scores of a block with keys in lanes. Keys are transposed in registers, from any type of number. Included once per
// instruction set.
#include "core/kernels/key_block-inl.h"

#if defined(ATTEND_CORE_KERNELS_KEY_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_KEY_SCORES_INL_H_
#undef ATTEND_CORE_KERNELS_KEY_SCORES_INL_H_
#else
#define ATTEND_CORE_KERNELS_KEY_SCORES_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

// As many groups of kLanes keys at a time as registers allow for so many rows: their sums stay in registers. One row is
// bound by memory, which likes few places at a time.
template <int kRows>
constexpr int kGroupsFor = kRows == 1 ? 1 : HWY_MIN(4, (kManyRegisters ? 16 : 8) / kRows);

// Keys as columns: kColumns vectors, each of one dimension of kLanes keys, or of two where those are of 16 bits and
// widened by a shift or a mask.
template <typename T>
struct Columns {
  static constexpr bool kPairs = std::is_same_v<T, BFloat16> && kLanes > 1;
  static constexpr int kDims = static_cast<int>(kColumns) * (kPairs ? 2 : 1);

  HWY_INLINE Columns(const T* key, int64_t stride) {
    if constexpr (kPairs) {
      LoadColumns([=](int64_t i) { return reinterpret_cast<const float*>(key + i * stride); }, 0, vectors);
    } else {
      LoadColumns([=](int64_t i) { return key + i * stride; }, 0, vectors);
    }
  }

  HWY_INLINE Vec Dim(int i) const {
    if constexpr (!kPairs) return vectors[i];
    const Bits pairs = hn::BitCast(Uint32Tag(), vectors[i / 2]);
    return hn::BitCast(FloatTag(), i % 2 == 0 ? hn::ShiftLeft<16>(pairs) : hn::And(pairs, SetBits(0xffff0000u)));
  }

  Vec vectors[kColumns];
};

// Scores of kGroupsFor<kRows> groups of keys from `k` on, for kRows rows from `row` on; where there are fewer, the last
// is computed again. What is transposed is used straight from registers.
template <typename T, int kRows>
HWY_NOINLINE void ScoreKeys(const Block& block, int64_t k, LinesAhead& ahead) {
  constexpr int kGroups = kGroupsFor<kRows>;
  constexpr int kLinesPerTile = HWY_MAX(1, static_cast<int>(kLanes * Columns<T>::kDims * sizeof(T) / 64));
  const FloatTag d;
  const AttentionTask& task = block.task;
  const T* key = task.keys.Row<T>(block.first + k);
  const int64_t stride = task.keys.stride;
  const float* query[kRows];
  for (int r = 0; r < kRows; ++r) query[r] = block.panel.packed + HWY_MIN(r, block.panel.num_rows - 1) * task.head_dim;
  Vec sum[kGroups][kRows];
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) sum[g][r] = hn::Zero(d);
  }
  const auto add = [&](int64_t c, int64_t end) HWY_ATTR {
    HWY_UNROLL(4)
    for (int g = 0; g < kGroups; ++g) {
      for (int64_t from = c; from < end; from += Columns<T>::kDims) {
        const Columns<T> columns(key + g * kLanes * stride + from, stride);
        ahead.Request<kLinesPerTile>();
        HWY_UNROLL(16)
        for (int i = 0; i < Columns<T>::kDims; ++i) {
          const Vec keys = columns.Dim(i);
          HWY_UNROLL(8)
          for (int r = 0; r < kRows; ++r) sum[g][r] = hn::MulAdd(Broadcast(query[r][from + i]), keys, sum[g][r]);
        }
      }
    }
  };
  // Whole lines of a group before the next, because keys far apart may share the few places of a cache's set.
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t c = 0; c < task.head_dim; c += kLine) add(c, HWY_MIN(c + kLine, task.head_dim));
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) hn::Store(sum[g][r], d, block.scratch.scores + r * kKeyBlock + k + g * kLanes);
  }
}

template <typename T, int kRows>
void ScoreWholeBlock(const Block& block) {
  LinesAhead ahead(block, block.task.keys, block.task.head_dim);
  for (int64_t k = 0; k < kKeyBlock; k += kGroupsFor<kRows> * kLanes) ScoreKeys<T, kRows>(block, k, ahead);
}

// The same chains for any block: keys are transposed to the first-level cache a slab at a time.
template <typename T>
void ScorePartialBlock(const Block& block) {
  const AttentionTask& task = block.task;
  for (int64_t d = 0; d < task.head_dim; d += kSlab) {
    const int64_t depth = HWY_MIN(kSlab, task.head_dim - d);
    for (int64_t k = 0; k < RoundUp(block.count, kLanes); k += kLanes) {
      const T* key = task.keys.Row<T>(block.first + k) + d;
      const int64_t stride = task.keys.stride;
      PackTransposed([key, stride](int64_t i) { return key + i * stride; }, block.count - k, depth, 1.0f,
                     block.scratch.keys + k, kKeyBlock);
    }
    Multiply<Walk::kAlongRows>(block.panel.num_rows, RoundUp(block.count, kLanes) / kLanes,
                               {block.panel.packed + d, task.head_dim}, {block.scratch.keys, kKeyBlock}, depth,
                               {block.scratch.scores, kKeyBlock}, d > 0);
  }
}

template <typename T>
void ScoreBlockOf(const Block& block) {
  if (block.count != kKeyBlock || block.task.head_dim % Columns<T>::kDims != 0) {
    ScorePartialBlock<T>(block);
  } else if (block.panel.num_rows == 1) {
    ScoreWholeBlock<T, 1>(block);
  } else if (block.panel.num_rows == 2) {
    ScoreWholeBlock<T, 2>(block);
  } else if (block.panel.num_rows <= 4) {
    ScoreWholeBlock<T, 4>(block);
  } else {
    ScoreWholeBlock<T, 8>(block);
  }
}

// Products of the panel's queries with the block's keys, to block.scratch.scores [rows][kKeyBlock].
void ScoreBlock(const Block& block) {
  switch (block.task.keys.type) {
    case DataType::kFloat16: ScoreBlockOf<Float16>(block); break;
    case DataType::kBFloat16: ScoreBlockOf<BFloat16>(block); break;
    default: ScoreBlockOf<float>(block); break;
  }
}

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_KEY_SCORES_INL_H_
