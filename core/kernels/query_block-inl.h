// A block of keys that is computed with queries in lanes, as a matrix [key][query] of scores, and what happens to
// scores before the softmax: softcap, bias, ALiBi and masks. Included once per instruction set.
#include "core/base/round.h"
#include "core/kernels/softmax-inl.h"

#if defined(ATTEND_CORE_KERNELS_QUERY_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_QUERY_BLOCK_INL_H_
#undef ATTEND_CORE_KERNELS_QUERY_BLOCK_INL_H_
#else
#define ATTEND_CORE_KERNELS_QUERY_BLOCK_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

constexpr int64_t kMaxVectors = kTileVectors;
constexpr int64_t kMaxRows = kMaxVectors * kLanes;
static_assert(kMaxRows <= 64);

int64_t Width(int64_t num_rows) { return RoundUp(num_rows, kLanes); }

// A state is [maximum][sum][rounded][output: value_dim], each a row of Width floats.
struct State {
  State(const Panel& panel, float* data)
      : width(Width(panel.num_rows)), max(data), sum(data + width), rounded(sum + width), output(rounded + width) {}
  int64_t width;
  float* max;
  float* sum;
  float* rounded;  // The sum of weights as the second product has them, where it rounds them; otherwise 0.
  float* output;
};

int64_t StateSize(const AttentionTask& task, int64_t num_rows) { return (task.value_dim + 3) * Width(num_rows); }
int64_t ScratchSize(const AttentionTask&, int64_t num_rows) { return (kKeyBlock + 1) * Width(num_rows); }

void Reset(const Panel& panel, float* data) {
  const State state(panel, data);
  const FloatTag d;
  for (int64_t i = 0; i < state.width; i += kLanes) hn::Store(Broadcast(-kInfinity), d, state.max + i);
  for (int64_t i = 0; i < state.width * (panel.task->value_dim + 2); i += kLanes) {
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
  // Counted from the block's first key, because float32 holds no position beyond 2^24 exactly.
  HWY_ALIGN float position[kLanes];
  for (int64_t r = 0; r < block.width; r += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const bool valid = r + i < block.panel.num_rows;
      slope[i] = valid ? block.panel.rows[r + i].alibi : 0.0f;
      position[i] = valid ? static_cast<float>(block.panel.rows[r + i].position - block.first) : 0.0f;
    }
    const Vec slopes = hn::Load(d, slope);
    const Vec positions = hn::Load(d, position);
    for (int64_t k = 0; k < block.count; ++k) {
      float* scores = block.scores + k * block.width + r;
      const Vec distance = hn::Abs(hn::Sub(positions, Broadcast(static_cast<float>(k))));
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

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_QUERY_BLOCK_INL_H_
