// Affine maps of rows of tokens: y = x . weight^T + bias.
//
// Output features are in lanes: a panel of weights is packed transposed once, then rows of x are read in their natural
// layout, an element broadcast at a time, and y is written in its own.
#include "core/kernels/kernel_table.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/linear.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
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

int64_t ScratchSize(const LinearTask& task) { return (task.in_features + kRowBlock) * kWidth; }

// Output features [first, first + width) of one panel.
struct LinearPanel {
  const LinearTask& task;
  int64_t first;
  int64_t width;
  int64_t vectors;
  const float* packed;  // [in_features][vectors * kLanes]
  float* sums;          // [kRowBlock][vectors * kLanes]
};

void PackWeights(const LinearTask& task, int64_t first, int64_t width, int64_t vectors, float* packed) {
  for (int64_t o = 0; o < width; o += kLanes) {
    const float* weight = task.weight + (first + o) * task.in_features;
    const int64_t stride = task.in_features;
    PackTransposed([weight, stride](int64_t i) { return weight + i * stride; }, width - o, task.in_features, 1.0f,
                   packed + o, vectors * kLanes);
  }
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
  for (int64_t first = 0; first < task.out_features; first += kWidth) {
    const int64_t width = HWY_MIN(kWidth, task.out_features - first);
    const int64_t vectors = (width + kLanes - 1) / kLanes;
    float* packed = scratch + kRowBlock * kWidth;
    PackWeights(task, first, width, vectors, packed);
    const LinearPanel panel{task, first, width, vectors, packed, scratch};
    for (int64_t row = 0; row < task.num_rows; row += kRowBlock) {
      ComputeRows(panel, row, HWY_MIN(kRowBlock, task.num_rows - row));
    }
  }
}

}  // namespace

const LinearKernels& LinearFunctions() {
  static constexpr LinearKernels kKernels = {kWidth, ScratchSize, Linear};
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
