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

// Asks for the rows of keys to come, in the order of memory, as many lines at a time as the kernel uses: keys are read
// side by side, which no hardware prefetcher follows. Into the second-level cache, because more lines may be pending
// there than to the first. A processor drops requests when too many are pending. What comes from memory is therefore
// requested twice: long before its use, and again shortly before, when a line that has arrived costs nothing. Rows that
// lie apart share few places of the cache and are requested less early.
class LinesAhead {
 public:
  LinesAhead(const Block& block, const KeyRows& rows, int64_t dim) : twice_(block.task.beyond_caches) {
    const int64_t size = ElementSize(rows.type);
    const int64_t far = block.first + (twice_ && rows.stride == dim ? 2 * kKeyBlock : kKeyBlock);
    const int64_t num_rows = HWY_MIN(kKeyBlock, block.task.key_length - far);
    if (num_rows <= 0) return;
    const bool dense = rows.stride == dim;
    next_ = static_cast<const char*>(rows.data) + (far - rows.first) * rows.stride * size;
    to_near_ = (block.first + kKeyBlock / 2 - far) * rows.stride * size;
    row_lines_ = Lines(dense ? num_rows * dim * size : dim * size);
    left_in_row_ = row_lines_;
    rows_left_ = dense ? 1 : num_rows;
    skip_ = rows.stride * size - row_lines_ * kLine;
  }

  template <int kCount>
  HWY_INLINE void Request() {
    if (rows_left_ == 0) return;
    HWY_UNROLL(8)
    for (int i = 0; i < kCount; ++i) __builtin_prefetch(next_ + i * kLine, 0, 2);
    if (twice_) {
      HWY_UNROLL(8)
      for (int i = 0; i < kCount; ++i) __builtin_prefetch(next_ + i * kLine + to_near_, 0, 2);
    }
    next_ += kCount * kLine;
    left_in_row_ -= kCount;
    if (left_in_row_ > 0) return;
    next_ += left_in_row_ * kLine + skip_;
    left_in_row_ = row_lines_;
    --rows_left_;
  }

 private:
  static constexpr int64_t kLine = 64;
  static int64_t Lines(int64_t bytes) { return (bytes + kLine - 1) / kLine; }

  bool twice_;
  const char* next_ = nullptr;
  int64_t to_near_ = 0;  // Bytes to the line requested again.
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
