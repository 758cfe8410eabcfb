// What the two ways of computing rows share: which keys of a block a row sees, and a row's log-sum-exp. Included once
// per instruction set.
#include "core/kernels/multiply-inl.h"

#if defined(ATTEND_CORE_KERNELS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_SOFTMAX_INL_H_
#undef ATTEND_CORE_KERNELS_SOFTMAX_INL_H_
#else
#define ATTEND_CORE_KERNELS_SOFTMAX_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {

// The running maximum moves only when a block's maximum exceeds it by more than this, in log2: p stays below 2^8 and
// most blocks need no rescaling (the idea is FlashAttention-4's, arXiv:2603.05451).
constexpr float kLazyGrowth = 8;

// The lowest `count` bits set; count in [0, 64].
HWY_INLINE std::uint64_t LowBits(int64_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

// Bit j is set when mask[j] is non-zero; count in [1, 64] bytes are read.
HWY_INLINE std::uint64_t MaskWord(const std::uint8_t* mask, int64_t count) {
  std::uint64_t word = 0;
#if HWY_TARGET != HWY_SCALAR
  if (count == 64) {
    const hn::CappedTag<std::uint8_t, 64> d;
    constexpr int64_t kBytes = HWY_MIN(HWY_LANES(std::uint8_t), 64);
    std::uint8_t bits[64 / 8 + 8] = {};
    for (int64_t i = 0; i < 64; i += kBytes) {
      hn::StoreMaskBits(d, hn::Ne(hn::LoadU(d, mask + i), hn::Zero(d)), bits + i / 8);
    }
    std::memcpy(&word, bits, sizeof(word));
    return word;
  }
#endif
  for (int64_t j = 0; j < count; ++j) word |= std::uint64_t{mask[j] != 0} << j;
  return word;
}

// Which of the `count` keys from `first` on the key mask leaves visible: bit j for key first + j.
HWY_INLINE std::uint64_t KeyMaskWord(const AttentionTask& task, int64_t first, int64_t count) {
  if (task.key_mask == nullptr) return ~std::uint64_t{0};
  if (task.key_mask_stride == 0) return *task.key_mask != 0 ? ~std::uint64_t{0} : 0;
  return MaskWord(task.key_mask + first, count);
}

// Which of the `count` keys from `first` on the row sees: bit j for key first + j. `unmasked` is their KeyMaskWord.
HWY_INLINE std::uint64_t VisibleWord(const AttentionTask& task, const QueryRow& row, std::uint64_t unmasked,
                                     int64_t first, int64_t count) {
  const int64_t begin = HWY_MAX(row.key_begin - first, 0);
  const int64_t end = HWY_MIN(row.key_end - first, count);
  if (begin >= end) return 0;
  const std::uint64_t word = (LowBits(end - begin) << begin) & unmasked;
  if (row.mask == nullptr) return word;
  if (task.mask_stride == 0) return *row.mask != 0 ? word : 0;
  return word & MaskWord(row.mask + first, count);
}

// The smallest magnitude but 0 and the largest of numbers, compared by their bits, shifted to drop the sign, so that
// NaN is the largest.
struct Magnitudes {
  hn::Vec<Uint32Tag> largest;
  hn::Vec<Uint32Tag> smallest;  // Less 1, so that 0 becomes the largest number.
};

HWY_INLINE Magnitudes NoMagnitudes() { return {hn::Zero(Uint32Tag()), hn::Set(Uint32Tag(), ~std::uint32_t{0})}; }

HWY_INLINE void AddMagnitudes(Vec numbers, Magnitudes& to) {
  const Uint32Tag du;
  const auto bits = hn::BitCast(du, numbers);
  const auto shifted = hn::Add(bits, bits);
  to.largest = hn::Max(to.largest, shifted);
  to.smallest = hn::Min(to.smallest, hn::Sub(shifted, hn::Set(du, 1)));
}

template <typename T>
HWY_INLINE void AddMagnitudes(const T* numbers, int64_t count, Magnitudes& to) {
  for (int64_t i = 0; i < count; i += kLanes) AddMagnitudes(LoadFirst(numbers + i, count - i), to);
}

HWY_INLINE float OfShiftedBits(std::uint32_t shifted) {
  shifted >>= 1;
  float x;
  std::memcpy(&x, &shifted, sizeof(x));
  return x;
}

HWY_INLINE float Largest(const Magnitudes& of) {
  return OfShiftedBits(hn::GetLane(hn::MaxOfLanes(Uint32Tag(), of.largest)));
}

// What there is to say of queries of these magnitudes.
HWY_INLINE PackedQueries MakePackedQueries(const AttentionTask& task, const Magnitudes& magnitudes) {
  const float smallest = OfShiftedBits(hn::GetLane(hn::MinOfLanes(Uint32Tag(), magnitudes.smallest)) + 1);
  const float scale = std::fabs(task.query_scale);
  return {smallest != 0 && smallest < std::numeric_limits<float>::min() / scale, Largest(magnitudes) * scale};
}

// Natural logarithm of a positive normal number, from operations that round the same everywhere; error below 1e-13.
// x = m 2^e with m near 1, and log(m) = 2 artanh((m - 1) / (m + 1)).
HWY_INLINE double NaturalLog(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const std::uint32_t shifted = bits - 0x3f3504f3u;  // sqrt(1/2): m lies in [sqrt(1/2), sqrt(2)).
  const int exponent = static_cast<int>(shifted) >> 23;
  const std::uint32_t mantissa_bits = bits - (static_cast<std::uint32_t>(exponent) << 23);
  float mantissa;
  std::memcpy(&mantissa, &mantissa_bits, sizeof(mantissa));
  const double s = (static_cast<double>(mantissa) - 1) / (static_cast<double>(mantissa) + 1);
  const double s2 = s * s;
  double series = 0;
  for (int k = 17; k >= 1; k -= 2) series = series * s2 + 1.0 / k;
  return exponent * 0.69314718055994530942 + 2 * s * series;
}

// x, or NaN where x is infinite.
HWY_INLINE Vec NanIfInfinite(Vec x) { return hn::MulAdd(x, hn::Zero(FloatTag()), x); }

// Nothing but masks comes between products and softmax.
HWY_INLINE bool HasPlainScores(const AttentionTask& task) {
  return task.softcap == 0 && !task.has_bias && !task.has_alibi;
}

// Maximum in log2 and sum of rows, one a lane.
struct Softmax {
  Vec max;
  Vec sum;
};

// What a row without visible keys ends with: its sink, whatever that is, as a maximum of its own weight; or nothing.
HWY_INLINE Softmax OfSinkAlone(Vec sink) {
  return {sink, hn::IfThenZeroElse(hn::Eq(sink, Broadcast(-kInfinity)), Broadcast(1.0f))};
}

// The log-sum-exp of a row from its maximum in log2 and its sum.
HWY_INLINE float LogSumExp(float max, float sum) {
  if (sum == 0) return -kInfinity;
  if (!(sum > 0 && sum < kInfinity)) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>(max * 0.69314718055994530942 + NaturalLog(sum));
}

// Turns the scores kept of one row into what was asked for: scores in natural units, weights as p / sum. `max` and
// `inverse_sum` are the row's own.
HWY_INLINE void FinishKeptScores(const QueryRow& row, int64_t key_length, float max, float inverse_sum) {
  const float* kept = row.kept_scores();
  if (kept == nullptr) return;
  const Vec subtract = FiniteMaximum(Broadcast(max));
  for (int64_t j = 0; j < key_length; j += kLanes) {
    const int64_t count = HWY_MIN(kLanes, key_length - j);
    const Vec score = LoadFirst(kept + j, count);
    if (row.weights != nullptr) {
      const Vec weight = hn::Mul(Exp2(hn::Sub(score, subtract)), Broadcast(inverse_sum));
      // A masked key weighs 0 even in a row that is NaN.
      StoreFirst(hn::IfThenZeroElse(hn::Eq(score, Broadcast(-kInfinity)), weight), row.weights + j, count);
    }
    if (row.scores != nullptr) StoreFirst(hn::Mul(score, Broadcast(kLn2)), row.scores + j, count);
  }
}

// Keeps -infinity as the scores of keys [begin, end) that were not computed because nobody sees them.
HWY_INLINE void KeepMasked(const QueryRow& row, int64_t begin, int64_t end) {
  float* kept = row.kept_scores();
  if (kept == nullptr) return;
  for (int64_t j = begin; j < end; ++j) kept[j] = -kInfinity;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_SOFTMAX_INL_H_
