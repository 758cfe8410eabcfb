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
#include "core/kernels/linear-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {

// From so many rows on a panel of 16-bit weights is widened to memory before it is multiplied, which costs as much as
// multiplying three rows; for fewer in registers, each time it is read.
constexpr int64_t kRowsToWiden = 3 * kTileRows;

bool WidensInRegisters(const LinearTask& task) {
  return task.panels != nullptr && task.weight_type != DataType::kFloat32 && task.num_rows < kRowsToWiden;
}

// The sums of a block of rows, and where weights do not come as panels of floats a panel of those.
int64_t ScratchSize(const LinearTask& task) {
  const bool in_place = task.panels != nullptr && task.weight_type == DataType::kFloat32;
  return (kRowBlock + (in_place || WidensInRegisters(task) ? 0 : task.in_features)) * kWidth;
}

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
void PackFloats(const LinearPanel& panel, float* to) {
  HWY_ALIGN float wide[kLanes * kSlab];
  const LinearTask& task = panel.task;
  for (int64_t i = 0; i < task.in_features; i += kSlab) {
    const int64_t columns = HWY_MIN(kSlab, task.in_features - i);
    for (int64_t o = 0; o < panel.width; o += kLanes) {
      const int64_t rows = HWY_MIN(kLanes, panel.width - o);
      const WeightBlock block = GetWeights(task, panel.first + o, rows, i, columns, wide);
      PackTransposed([block](int64_t r) { return block.data + r * block.stride; }, rows, columns, Broadcast(1.0f),
                     to + i * panel.stride() + o, panel.stride());
    }
  }
}

void Pack(const LinearTask& task, void* panels) {
  ForEachPanel(task, nullptr, [&](const LinearPanel& panel) {
    void* to = static_cast<std::byte*>(panels) + PackedBytes(task.weight_type, task.in_features, panel.first);
    switch (task.weight_type) {
      case DataType::kFloat16: return PackPairs<Float16>(panel, static_cast<std::uint32_t*>(to));
      case DataType::kBFloat16: return PackPairs<BFloat16>(panel, static_cast<std::uint32_t*>(to));
      default: return PackFloats(panel, static_cast<float*>(to));
    }
  });
}

template <typename Half>
void WidenPanel(const LinearPanel& panel, float* to) {
  const FloatTag d;
  const auto* from = static_cast<const std::uint32_t*>(panel.Packed());
  const int64_t stride = panel.stride();
  for (int64_t i = 0; i < panel.task.in_features; i += 2, from += stride, to += 2 * stride) {
    for (int64_t o = 0; o < stride; o += kLanes) {
      const WidePair pair = LoadPair(from + o, static_cast<const Half*>(nullptr));
      hn::Store(pair.first, d, to + o);
      if (i + 1 < panel.task.in_features) hn::Store(pair.second, d, to + stride + o);
    }
  }
}

// The panel as floats: where it is, or at `own`.
const float* FloatPanel(const LinearPanel& panel, float* own) {
  const LinearTask& task = panel.task;
  if (task.panels == nullptr) {
    PackFloats(panel, own);
  } else if (task.weight_type == DataType::kFloat16) {
    WidenPanel<Float16>(panel, own);
  } else if (task.weight_type == DataType::kBFloat16) {
    WidenPanel<BFloat16>(panel, own);
  } else {
    return static_cast<const float*>(panel.Packed());
  }
  return own;
}

void ComputeRows(const LinearPanel& panel, const float* packed, int64_t row, int64_t num_rows) {
  const LinearTask& task = panel.task;
  const int64_t stride = panel.stride();
  const float* x = static_cast<const float*>(task.x) + row * task.x_stride;
  for (int64_t i = 0; i < task.in_features; i += kSlab) {
    Multiply<Walk::kAlongRows>(num_rows, panel.vectors, {x + i, task.x_stride}, {packed + i * stride, stride},
                               HWY_MIN(kSlab, task.in_features - i), {panel.sums, stride}, i > 0);
  }
  WriteRows(panel, row, num_rows);
}

// Sums of kRows rows from `row` on over all input features, as Multiply has them, and their outputs.
template <typename Half, int kRows, int kVectors>
HWY_NOINLINE void ComputeFromPairs(const LinearPanel& panel, int64_t row) {
  const FloatTag d;
  const LinearTask& task = panel.task;
  const float* x[kRows];
  Vec sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const float*>(task.x) + (row + r) * task.x_stride;
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) sum[r][j] = hn::Zero(d);
  }
  const auto* from = static_cast<const std::uint32_t*>(panel.Packed());
  int64_t i = 0;
  for (; i + 2 <= task.in_features; i += 2, from += kVectors * kLanes) {
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) {
      const WidePair pair = LoadPair(from + j * kLanes, static_cast<const Half*>(nullptr));
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        sum[r][j] = hn::MulAdd(Broadcast(x[r][i]), pair.first, sum[r][j]);
        sum[r][j] = hn::MulAdd(Broadcast(x[r][i + 1]), pair.second, sum[r][j]);
      }
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) {
      if (i < task.in_features) {
        const Vec last = LoadPair(from + j * kLanes, static_cast<const Half*>(nullptr)).first;
        sum[r][j] = hn::MulAdd(Broadcast(x[r][i]), last, sum[r][j]);
      }
      hn::Store(sum[r][j], d, panel.sums + (r * kVectors + j) * kLanes);
    }
  }
  WriteRows(panel, row, kRows);
}

template <typename Half, int kVectors>
void ComputeAllFromPairs(const LinearPanel& panel) {
  int64_t row = 0;
  if constexpr (kManyRegisters) {
    for (; row + 8 <= panel.task.num_rows; row += 8) ComputeFromPairs<Half, 8, kVectors>(panel, row);
    for (; row + 4 <= panel.task.num_rows; row += 4) ComputeFromPairs<Half, 4, kVectors>(panel, row);
  }
  for (; row + 2 <= panel.task.num_rows; row += 2) ComputeFromPairs<Half, 2, kVectors>(panel, row);
  for (; row < panel.task.num_rows; ++row) ComputeFromPairs<Half, 1, kVectors>(panel, row);
}

template <typename Half>
void ComputeInRegisters(const LinearPanel& panel) {
  switch (panel.vectors) {
    case 3: return ComputeAllFromPairs<Half, 3>(panel);
    case 2: return ComputeAllFromPairs<Half, 2>(panel);
    default: return ComputeAllFromPairs<Half, 1>(panel);
  }
}

void Linear(const LinearTask& task, float* scratch) {
  ForEachPanel(task, scratch, [&](const LinearPanel& panel) {
    if (WidensInRegisters(task)) {
      return task.weight_type == DataType::kFloat16 ? ComputeInRegisters<Float16>(panel)
                                                    : ComputeInRegisters<BFloat16>(panel);
    }
    const float* packed = FloatPanel(panel, scratch + kRowBlock * kWidth);
    for (int64_t row = 0; row < task.num_rows; row += kRowBlock) {
      ComputeRows(panel, packed, row, HWY_MIN(kRowBlock, task.num_rows - row));
    }
  });
}

}  // namespace

const LinearKernels& LinearFunctions() {
  static constexpr LinearKernels kKernels = {kWidth, PackedBytes, Pack, ScratchSize, Linear};
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
