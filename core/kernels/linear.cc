// Affine maps of rows of tokens: y = x . weight^T + bias.
//
// Output features are in lanes: a panel of weights is packed transposed, then rows of x are read in their natural
// layout, an element broadcast at a time, and y is written in its own.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/base/round.h"
#include "core/kernels/kernel_table.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/linear.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/kernels/convert-inl.h"
#include "core/kernels/multiply-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kWidth = kTileVectors * kLanes;
// Rows whose sums wait in the first-level cache while the input features pass slab by slab.
constexpr int64_t kRowBlock = 6 * kTileRows;
// Input features of a packed slab, which with its rows of sums stays in the first-level cache.
constexpr int64_t kSlab = 128;

// The sums of a block of rows, and where weights come unpacked a panel of them packed.
int64_t ScratchSize(const LinearTask& task) {
  return (kRowBlock + (task.panels == nullptr ? task.in_features : 0)) * kWidth;
}

// Output features [first, first + width) of one panel.
struct LinearPanel {
  const LinearTask& task;
  int64_t first;
  int64_t width;
  int64_t vectors;
  const float* packed;  // [in_features][vectors * kLanes]
  float* sums;          // [kRowBlock][vectors * kLanes]
};

// Some columns of some rows of a weight matrix as floats.
struct WeightBlock {
  const float* data;
  int64_t stride;
};

// Elements [column, column + columns) of the weight rows [row, row + rows): where they are, or widened to `wide`
// [kLanes][kSlab]. They may lie at any address.
WeightBlock GetWeights(const LinearTask& task, int64_t row, int64_t rows, int64_t column, int64_t columns,
                       float* wide) {
  const int64_t size = ElementSize(task.weight_type);
  const auto* from = static_cast<const std::byte*>(task.weight) + (row * task.in_features + column) * size;
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(from) % sizeof(float) == 0;
  if (task.weight_type == DataType::kFloat32 && is_aligned) {
    return {reinterpret_cast<const float*>(from), task.in_features};
  }
  HWY_ALIGN std::byte piece[kSlab * sizeof(float)];
  for (int64_t r = 0; r < rows; ++r, from += task.in_features * size) {
    std::memcpy(piece, from, static_cast<size_t>(columns * size));
    Widen(task.weight_type, piece, columns, wide + r * kSlab);
  }
  return {wide, kSlab};
}

// A slab at a time, so that what is written next to each other is written soon after each other.
void PackPanel(const LinearTask& task, int64_t first, int64_t width, int64_t vectors, float* packed) {
  HWY_ALIGN float wide[kLanes * kSlab];
  const int64_t to_stride = vectors * kLanes;
  for (int64_t i = 0; i < task.in_features; i += kSlab) {
    const int64_t columns = HWY_MIN(kSlab, task.in_features - i);
    for (int64_t o = 0; o < width; o += kLanes) {
      const int64_t rows = HWY_MIN(kLanes, width - o);
      const WeightBlock block = GetWeights(task, first + o, rows, i, columns, wide);
      PackTransposed([block](int64_t r) { return block.data + r * block.stride; }, rows, columns, 1.0f,
                     packed + i * to_stride + o, to_stride);
    }
  }
}

// Panel after panel. Calls panel(first, width, vectors).
template <typename Panel>
HWY_INLINE void ForEachPanel(int64_t out_features, const Panel& panel) {
  for (int64_t first = 0; first < out_features; first += kWidth) {
    const int64_t width = HWY_MIN(kWidth, out_features - first);
    panel(first, width, CeilDiv(width, kLanes));
  }
}

int64_t PackedSize(int64_t in_features, int64_t out_features) { return in_features * RoundUp(out_features, kLanes); }

void Pack(const LinearTask& task, float* panels) {
  ForEachPanel(task.out_features, [&](int64_t first, int64_t width, int64_t vectors) {
    PackPanel(task, first, width, vectors, panels + first * task.in_features);
  });
}

void WriteRows(const LinearPanel& panel, int64_t row, int64_t num_rows) {
  const FloatTag d;
  for (int64_t o = 0; o < panel.width; o += kLanes) {
    const int64_t count = HWY_MIN(kLanes, panel.width - o);
    const Vec bias = panel.task.bias == nullptr ? hn::Zero(d) : LoadFirst(panel.task.bias + panel.first + o, count);
    float* y = panel.task.y + row * panel.task.y_stride + panel.first + o;
    for (int64_t r = 0; r < num_rows; ++r, y += panel.task.y_stride) {
      const Vec sum = hn::Load(d, panel.sums + r * panel.vectors * kLanes + o);
      StoreFirst(panel.task.bias == nullptr ? sum : hn::Add(sum, bias), y, count);
    }
  }
}

void ComputeRows(const LinearPanel& panel, int64_t row, int64_t num_rows) {
  const LinearTask& task = panel.task;
  const int64_t stride = panel.vectors * kLanes;
  for (int64_t i = 0; i < task.in_features; i += kSlab) {
    Multiply<Walk::kAlongRows>(num_rows, panel.vectors, {task.x + row * task.x_stride + i, task.x_stride},
                               {panel.packed + i * stride, stride}, HWY_MIN(kSlab, task.in_features - i),
                               {panel.sums, stride}, i > 0);
  }
  WriteRows(panel, row, num_rows);
}

void Linear(const LinearTask& task, float* scratch) {
  float* own = scratch + kRowBlock * kWidth;
  ForEachPanel(task.out_features, [&](int64_t first, int64_t width, int64_t vectors) {
    if (task.panels == nullptr) PackPanel(task, first, width, vectors, own);
    const float* packed = task.panels == nullptr ? own : task.panels + first * task.in_features;
    const LinearPanel panel{task, first, width, vectors, packed, scratch};
    for (int64_t row = 0; row < task.num_rows; row += kRowBlock) {
      ComputeRows(panel, row, HWY_MIN(kRowBlock, task.num_rows - row));
    }
  });
}

}  // namespace

const LinearKernels& LinearFunctions() {
  static constexpr LinearKernels kKernels = {kWidth, PackedSize, Pack, ScratchSize, Linear};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend {
const LinearKernels& LinearKernelsFor(InstructionSet set) { ATTEND_RETURN_FOR(set, LinearFunctions) }
}  // namespace attend
#endif
