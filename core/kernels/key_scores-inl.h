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

// How many dimensions of a key a lane has before they are widened: two of 16 bits where a shift, a mask, or an
// instruction that takes halves of lanes widens them, and four of 8 bits.
template <typename T>
constexpr int kDimsInLane = kLanes == 1                                           ? 1
                            : std::is_same_v<T, std::int8_t>                      ? 4
                            : std::is_same_v<T, BFloat16>                         ? 2
                            : std::is_same_v<T, Float16>&& HWY_TARGET == HWY_AVX3 ? 2
                                                                                  : 1;

// The bits of `lanes` in `mask` as a number less 128: where they are low bits of a float's mantissa, neither a shift
// nor a conversion is needed. `zero` is that float with 128 in those bits.
HWY_INLINE Vec WidenInMantissa(Bits lanes, std::uint32_t mask, std::uint32_t zero) {
  const Bits number = hn::Xor(hn::And(lanes, SetBits(mask)), SetBits(zero));
  return hn::Sub(hn::BitCast(FloatTag(), number), hn::BitCast(FloatTag(), SetBits(zero)));
}

// Byte n of each lane as a signed number. Lower ones go into floats from 2^23 and from 2^15 on, which is 10 % faster.
HWY_INLINE Vec WidenByte(Vec quads, int n) {
  const Bits lanes = hn::BitCast(Uint32Tag(), quads);
  if (n == 0) return WidenInMantissa(lanes, 0xff, 0x4b000080);
  if (n == 1) return WidenInMantissa(lanes, 0xff00, 0x47008000);
  if (n == 2) return WidenInMantissa(hn::ShiftRight<16>(lanes), 0xff, 0x4b000080);
  return hn::ConvertTo(FloatTag(), hn::ShiftRight<24>(hn::BitCast(Int32Tag(), quads)));
}

// Keys as columns: kColumns vectors, each of kInLane dimensions of kLanes keys.
template <typename T, int kInLane = kDimsInLane<T>>
struct Columns {
  static constexpr int kDims = static_cast<int>(kColumns) * kInLane;

  Columns() = default;
  HWY_INLINE Columns(const T* key, int64_t stride) {
    using Number = std::conditional_t<(kInLane > 1), float, T>;
    // From every fourth row the next three are within what an instruction adds to an address. The compiler, if it could
    // see where `key` comes from, would keep a pointer for every row instead, in memory.
    asm("" : "+r"(key));
    const T* fourth[HWY_MAX(1, kLanes / 4)];
    HWY_UNROLL(4)
    for (int64_t i = 0; i < kLanes; i += 4) fourth[i / 4] = key + i * stride;
    const auto row = [&](int64_t i) { return reinterpret_cast<const Number*>(fourth[i / 4] + i % 4 * stride); };
    LoadColumns(row, 0, vectors);
  }

  // Number n of the lanes of vector v.
  HWY_INLINE Vec Dim(int v, int n) const {
    if constexpr (kInLane == 1) return vectors[v];
    if constexpr (kInLane == 4) return WidenByte(vectors[v], n);
    const Bits pairs = hn::BitCast(Uint32Tag(), vectors[v]);
#if HWY_TARGET == HWY_AVX3
    if constexpr (std::is_same_v<T, Float16>) {
      return WidenFloat16(Halves{_mm512_cvtepi32_epi16((n == 0 ? pairs : hn::ShiftRight<16>(pairs)).raw)});
    }
#endif
    return hn::BitCast(FloatTag(), n == 0 ? hn::ShiftLeft<16>(pairs) : hn::And(pairs, SetBits(0xffff0000u)));
  }

  Vec vectors[kColumns];
};

// Whole blocks have a head size that is a multiple of it. The many dimensions of a tile of 8 bits are not asked for.
template <typename T>
constexpr int kLeastDims = kHasScales<T> ? Columns<T, 1>::kDims : Columns<T>::kDims;

// The scores of kGroups groups of kLanes keys for kRows rows, which stay in registers while dimensions are added to
// them; where there are fewer rows, the last is computed again.
template <typename T, int kRows, int kGroups>
struct GroupScores {
  HWY_INLINE GroupScores(const Panel& panel, int64_t key) {
    const int64_t dim = panel.task->head_dim;
    for (int r = 0; r < kRows; ++r) query[r] = panel.packed + HWY_MIN(r, panel.num_rows - 1) * dim;
    HWY_UNROLL(4)
    for (int g = 0; g < kGroups; ++g) {
      if constexpr (kHasScales<T>) scale[g] = ScalesOfKeys<T>(panel.task->keys, key + g * kLanes, kLanes);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) sum[g][r] = hn::Zero(FloatTag());
    }
  }

  // Adds the dimensions from `from` on, whose columns are of each group's keys.
  template <int kInLane>
  HWY_INLINE void Add(const Columns<T, kInLane> (&columns)[kGroups], int64_t from) {
    HWY_UNROLL(16)
    for (int v = 0; v < kColumns; ++v) {
      HWY_UNROLL(4)
      for (int n = 0; n < kInLane; ++n) AddDim(columns, v, n, from + v * kInLane + n);
    }
  }

  // Adds dimension `dim`, number n of the lanes of vector v.
  template <int kInLane>
  HWY_INLINE void AddDim(const Columns<T, kInLane> (&columns)[kGroups], int v, int n, int64_t dim) {
    HWY_UNROLL(2)
    for (int g = 0; g < kGroups; ++g) {
      Vec keys = columns[g].Dim(v, n);
      if constexpr (kHasScales<T>) keys = hn::Mul(keys, scale[g]);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) sum[g][r] = hn::MulAdd(Broadcast(query[r][dim]), keys, sum[g][r]);
    }
  }

  // To rows of kKeyBlock scores.
  HWY_INLINE void Store(float* scores) const {
    HWY_UNROLL(4)
    for (int g = 0; g < kGroups; ++g) {
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) hn::Store(sum[g][r], FloatTag(), scores + r * kKeyBlock + g * kLanes);
    }
  }

  const float* query[kRows];
  Vec scale[kGroups];
  Vec sum[kGroups][kRows];
};

// Adds dimensions [c, end) in tiles of Columns<T, kInLane> as long as they fill one, and returns the first that is
// left.
template <int kInLane, class Ahead, typename T, int kRows, int kGroups>
HWY_INLINE int64_t AddColumns(GroupScores<T, kRows, kGroups>& scores, const T* key, int64_t stride, int64_t c,
                              int64_t end, Ahead& ahead) {
  constexpr int kDims = Columns<T, kInLane>::kDims;
  constexpr int kLinesPerTile = HWY_MAX(1, static_cast<int>(kLanes * kDims * sizeof(T) / kLine));
  for (; c + kDims <= end; c += kDims) {
    Columns<T, kInLane> columns[kGroups] = {};
    HWY_UNROLL(2)
    for (int g = 0; g < kGroups; ++g) {
      columns[g] = Columns<T, kInLane>(key + g * kLanes * stride + c, stride);
      ahead.template Request<kLinesPerTile>();
    }
    scores.Add(columns, c);
  }
  return c;
}

// Scores of kGroups groups of keys from `k` on for all rows. What is transposed is used straight from registers.
template <typename T, int kRows, int kGroups, class Ahead>
HWY_INLINE void ScoreKeys(const Block& block, int64_t k, Ahead& ahead) {
  constexpr int kDims = Columns<T>::kDims;
  [[maybe_unused]] constexpr int kLinesPerTile = kLanes * kDims * sizeof(T) / kLine;
  const int64_t head_dim = block.task.head_dim, stride = Ahead::kDense ? head_dim : block.task.keys.stride;
  const T* key = block.task.keys.Row<T>(block.first + k);
  GroupScores<T, kRows, kGroups> scores(block.panel, block.first + k);
  int64_t c = 0;
#if HWY_TARGET == HWY_AVX3
  // Whole lines, because keys far apart may share the few places of a cache's set.
  constexpr int64_t kStep = kLine / sizeof(T);
  for (; !Ahead::kDense && c + kStep <= head_dim; c += kStep) {
    Columns<T> low[kGroups], high[kGroups];
    HWY_UNROLL(2)
    for (int g = 0; g < kGroups; ++g) {
      const T* group = key + g * kLanes * stride + c;
      LoadLines([=](int64_t i) { return reinterpret_cast<const float*>(group + i * stride); }, 0, low[g].vectors,
                high[g].vectors);
      ahead.template Request<kLinesPerTile>();
    }
    scores.Add(low, c);
    HWY_UNROLL(2)
    for (int g = 0; g < kGroups; ++g) ahead.template Request<kLinesPerTile>();
    scores.Add(high, c + kDims);
  }
#endif
  c = AddColumns<kDimsInLane<T>>(scores, key, stride, c, head_dim, ahead);
  if constexpr (kLeastDims<T> < kDims) AddColumns<1>(scores, key, stride, c, head_dim, ahead);
  scores.Store(block.scratch.scores + k);
}

template <typename T, int kRows, int kGroups, class Ahead>
HWY_NOINLINE void ScoreGroups(const Block& block, Ahead ahead) {
  for (int64_t k = 0; k < kKeyBlock; k += kGroups * kLanes) ScoreKeys<T, kRows, kGroups>(block, k, ahead);
}

template <typename T, int kRows>
void ScoreWholeBlock(const Block& block) {
  constexpr int kInCaches = kGroupsInCaches<kRows>, kFromMemory = kGroupsFromMemory<T, kRows>;
  const AttentionTask& task = block.task;
  if (task.keys.stride != task.head_dim) {
    ScoreGroups<T, kRows, 1>(block, ApartLinesAhead(block, task.keys, task.head_dim, task.keys_ahead));
  } else if (task.far_bytes != 0) {
    ScoreGroups<T, kRows, kFromMemory>(
        block, LinesAhead<true>(block, task.keys, task.head_dim, kKeyBytesAhead<T, kFromMemory>));
  } else if (task.beyond_caches) {
    ScoreGroups<T, kRows, kFromMemory>(
        block, LinesAhead<false>(block, task.keys, task.head_dim, kKeyBytesAhead<T, kFromMemory>));
  } else {
    ScoreGroups<T, kRows, kInCaches>(block,
                                     LinesAhead<false>(block, task.keys, task.head_dim, kKeyBytesAhead<T, kInCaches>));
  }
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
      PackTransposed([key, stride](int64_t i) { return key + i * stride; }, block.count - k, depth,
                     ScalesOfKeys<T>(task.keys, block.first + k, block.count - k), block.scratch.keys + k, kKeyBlock);
    }
    Multiply<Walk::kAlongRows>(block.panel.num_rows, RoundUp(block.count, kLanes) / kLanes,
                               {block.panel.packed + d, task.head_dim}, {block.scratch.keys, kKeyBlock}, depth,
                               {block.scratch.scores, kKeyBlock}, d > 0);
  }
}

template <typename T>
void ScoreBlockOf(const Block& block) {
  if (block.count != kKeyBlock || block.task.head_dim % kLeastDims<T> != 0) {
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
    case DataType::kInt8: ScoreBlockOf<std::int8_t>(block); break;
    default: ScoreBlockOf<float>(block); break;
  }
}

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_KEY_SCORES_INL_H_
