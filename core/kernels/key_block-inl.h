// A block of keys that is computed with keys in lanes (key_lanes.cc), its memory, and requests for the next one.
// Included once per instruction set.
#include "core/base/round.h"
#include "core/kernels/softmax-inl.h"

#if defined(ATTEND_CORE_KERNELS_KEY_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_KEY_BLOCK_INL_H_
#undef ATTEND_CORE_KERNELS_KEY_BLOCK_INL_H_
#else
#define ATTEND_CORE_KERNELS_KEY_BLOCK_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

constexpr int64_t kMaxRows = 8;
constexpr int64_t kSlab = 64;  // Head dimensions that are transposed at a time: a slab of kKeyBlock keys is 16 KiB.

int64_t Padded(int64_t size) { return RoundUp<int64_t>(size, 16); }  // Rows of floats start on a cache line.

// A state is [maximum: kMaxRows][sum: kMaxRows][rounded: kMaxRows][output: rows x value_dim, padded].
struct State {
  State(const Panel& panel, float* data)
      : stride(Padded(panel.task->value_dim)),
        max(data),
        sum(data + kMaxRows),
        rounded(sum + kMaxRows),
        output(data + kHead) {}

  static constexpr int64_t kHead = 4 * kMaxRows;  // Floats before the output, which starts on a cache line.
  int64_t stride;
  float* max;
  float* sum;
  float* rounded;  // The sum of weights as the second product has them, where it rounds them; otherwise 0.
  float* output;
};

// The memory behind panel.scratch.
struct Scratch {
  explicit Scratch(const Panel& panel)
      : scores(panel.scratch), keys(scores + kMaxRows * kKeyBlock), values(keys + kSlab * kKeyBlock) {}
  float* scores;  // [rows][kKeyBlock]
  float* keys;    // [kSlab][kKeyBlock]
  float* values;  // [kKeyBlock][padded value_dim], where values have to be copied.
};

struct Block {
  const AttentionTask& task;
  const Panel& panel;
  int64_t first;
  int64_t count;
  Scratch scratch;
};

// Some of a block's keys.
struct Keys {
  int64_t begin;
  int64_t end;
};

// Whether rows of T have scales.
template <typename T>
constexpr bool kHasScales = std::is_same_v<T, std::int8_t>;

// The scales of `count` keys from j on, a lane each, and zeros behind; ones where T has none.
template <typename T>
HWY_INLINE Vec ScalesOfKeys(const KeyRows& rows, int64_t j, int64_t count) {
  if constexpr (!kHasScales<T>) return Broadcast(1.0f);
  if (rows.scale_stride == 1) return LoadFirst(rows.Scale(j), count);
  HWY_ALIGN float scales[kLanes] = {};
  for (int64_t i = 0; i < HWY_MIN(count, kLanes); ++i) scales[i] = *rows.Scale(j + i);
  return hn::Load(FloatTag(), scales);
}

// Numbers of key j, widened, times its scale if T has one: rounded once.
template <typename T>
HWY_INLINE Vec TimesScale(Vec widened, const KeyRows& rows, int64_t j) {
  if constexpr (!kHasScales<T>) return widened;
  return hn::Mul(widened, Broadcast(*rows.Scale(j)));
}

// How many groups of kLanes keys are scored side by side. Each waits for its last sums, and few rows have few sums; but
// what comes from memory comes fastest when few lines are used at once.
template <int kRows>
constexpr int kGroupsInCaches = kRows > 4 ? 1 : 2;
template <typename T, int kRows>
constexpr int kGroupsFromMemory = kRows == 1 && sizeof(T) <= 2 ? 2 : 1;

// How many bytes before their use keys are requested: about as many as are used at once, as all rows of kGroups groups
// are. INT8 takes longer to widen than to fetch, so it comes slower, and fewer of its bytes are on their way.
template <typename T, int kGroups>
constexpr int64_t kKeyBytesAhead = (kGroups + 1) * (sizeof(T) == 1 ? 2048 : 4096);

// The same for values, where one pass over each key's does, and where it does not. Then a few keys at a time are
// computed, so that all passes find their values in the first-level cache.
template <typename T>
constexpr int64_t kValueBytesAhead = sizeof(T) == 1 ? 4096 : 6144;
constexpr int64_t kPassedBytesAhead = 12288;
constexpr int64_t kPassedKeys = 32;

constexpr int64_t kLine = 64;  // Bytes.

// Requests the rows of keys to come, as many lines at a time as the kernel uses: keys are read side by side, which no
// hardware prefetcher follows; what is requested in the order of memory it does follow. Into the first-level cache, and
// only as far ahead as memory takes to answer: so the lines are still there when they are used, however small that
// cache is. For rows that are dense.
//
// With kFar also AttentionTask::far_bytes ahead, into the second level: a first level that waits for few lines at a
// time does not fill the way to memory.
template <bool kFar>
class LinesAhead {
 public:
  static constexpr bool kDense = true;

  // `bytes` before their use.
  LinesAhead(const Block& block, const KeyRows& rows, int64_t dim, int64_t bytes) {
    const int64_t row_bytes = dim * ElementSize(rows.type);
    const int64_t left = HWY_MAX(0, block.task.key_length - block.first - kKeyBlock) * row_bytes;
    next_ = static_cast<const char*>(rows.data) + (block.first - rows.first) * row_bytes + HWY_MIN(bytes, left);
    to_far_ = HWY_MIN(HWY_MAX(bytes, block.task.far_bytes), left) - HWY_MIN(bytes, left);
  }

  template <int kCount>
  HWY_INLINE void Request() {
    HWY_UNROLL(8)
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kFar) __builtin_prefetch(next_ + to_far_ + i * kLine, 0, 2);
      __builtin_prefetch(next_ + i * kLine, 0, 3);
    }
    next_ += kCount * kLine;
  }

 private:
  const char* next_;
  int64_t to_far_;  // Bytes from there.
};

// The same for rows that lie apart: they share few places of the first-level cache and go to the second level, a block
// ahead. A processor drops requests when too many are pending, so what comes from memory is requested a second time,
// half a block later: for a line that has arrived that costs nothing.
class ApartLinesAhead {
 public:
  static constexpr bool kDense = false;

  // `ahead` is the task's for these rows.
  ApartLinesAhead(const Block& block, const KeyRows& rows, int64_t dim, int64_t ahead)
      : twice_(block.task.beyond_caches) {
    const int64_t size = ElementSize(rows.type);
    const int64_t keys = ahead != 0 ? 0 : kKeyBlock;
    rows_left_ = HWY_MIN(kKeyBlock, block.task.key_length - block.first - keys);
    if (rows_left_ <= 0) return;
    const int64_t to_first = keys * rows.stride + ahead;
    next_ = static_cast<const char*>(rows.data) + ((block.first - rows.first) * rows.stride + to_first) * size;
    // Half a block further of these rows, and then half a block back of the requested ones.
    to_second_ = (kKeyBlock / 2 * rows.stride - to_first) * size;
    to_second_later_ = ahead != 0 ? -kKeyBlock / 2 * rows.stride * size : to_second_;
    row_lines_ = left_in_row_ = (dim * size + kLine - 1) / kLine;
    skip_ = rows.stride * size - row_lines_ * kLine;
  }

  template <int kCount>
  HWY_INLINE void Request() {
    if (rows_left_ <= 0) return;
    HWY_UNROLL(8)
    for (int i = 0; i < kCount; ++i) __builtin_prefetch(next_ + i * kLine, 0, 2);
    if (twice_) {
      HWY_UNROLL(8)
      for (int i = 0; i < kCount; ++i) __builtin_prefetch(next_ + i * kLine + to_second_, 0, 2);
    }
    next_ += kCount * kLine;
    left_in_row_ -= kCount;
    if (left_in_row_ > 0) return;
    next_ += left_in_row_ * kLine + skip_;
    left_in_row_ = row_lines_;
    if (--rows_left_ == kKeyBlock / 2) to_second_ = to_second_later_;
  }

 private:
  bool twice_;
  const char* next_ = nullptr;
  int64_t to_second_ = 0;  // Bytes to the line that is requested a second time.
  int64_t to_second_later_ = 0;
  int64_t row_lines_ = 0;
  int64_t left_in_row_ = 0;
  int64_t rows_left_ = 0;
  int64_t skip_ = 0;  // Bytes from the end of a row to the next.
};

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_KEY_BLOCK_INL_H_
