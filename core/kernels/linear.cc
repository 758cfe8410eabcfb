// Affine maps of rows of tokens: y = x . weight^T + bias.
//
// Output features are in lanes: a panel of weights is packed transposed once, then rows of x are read in their natural
// layout, an element broadcast at a time, and y is written in its own.
#include <cstddef>

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

// A panel's packed weights, the sums of a block of rows, and what PackWeights widens.
int64_t ScratchSize(const LinearTask& task) {
  const int64_t wide = task.weight_type == DataType::kFloat32 ? 0 : kLanes * task.in_features;
  return (task.in_features + kRowBlock) * kWidth + wide;
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

// Weight rows [first, first + count) as floats: where they are, or widened to `wide`.
const float* WeightRows(const LinearTask& task, int64_t first, int64_t count, float* wide) {
  const auto* rows =
      static_cast<const std::byte*>(task.weight) + first * task.in_features * ElementSize(task.weight_type);
  if (task.weight_type == DataType::kFloat32) return reinterpret_cast<const float*>(rows);
  Widen(task.weight_type, rows, count * task.in_features, wide);
  return wide;
}

void PackWeights(const LinearTask& task, int64_t first, int64_t width, int64_t vectors, float* packed) {
  float* wide = packed + task.in_features * kWidth;
  for (int64_t o = 0; o < width; o += kLanes) {
    const int64_t stride = task.in_features;
    const float* weight = WeightRows(task, first + o, HWY_MIN(kLanes, width - o), wide);
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
