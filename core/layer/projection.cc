#include "core/layer/projection.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "core/base/round.h"
#include "core/kernels/double_kernels.h"
#include "core/kernels/kernel_table.h"

namespace attend {
namespace {

// What one thread packs at a time: few megabytes of most layers, and tens of iterations for the large ones.
constexpr std::int64_t kPanelsAtATime = 4;

AlignedBuffer<std::byte> Panels(const LinearView& linear, const LinearKernels& kernels, Executor* executor) {
  LinearTask task;
  task.weight = linear.weight;
  task.weight_type = linear.weight_type;
  task.in_features = linear.in_features;
  task.out_features = linear.out_features;
  AlignedBuffer<std::byte> panels(kernels.packed_bytes(task.weight_type, task.in_features, task.out_features));
  if (executor == nullptr) {
    kernels.pack(task, panels.data());
    return panels;
  }
  const std::int64_t block = kPanelsAtATime * kernels.panel_width;
  executor->ParallelFor(CeilDiv(linear.out_features, block), [&](std::int64_t i) {
    const std::int64_t first = i * block;
    LinearTask part = task;
    part.weight =
        static_cast<const std::byte*>(task.weight) + first * linear.in_features * ElementSize(task.weight_type);
    part.out_features = std::min(block, linear.out_features - first);
    kernels.pack(part, panels.data() + kernels.packed_bytes(task.weight_type, task.in_features, first));
  });
  return panels;
}

// From any address.
AlignedBuffer<float> Bias(const LinearView& linear, const ConvertKernels& convert) {
  if (linear.bias == nullptr) return {};
  const std::int64_t bytes = linear.out_features * ElementSize(linear.bias_type);
  const AlignedBuffer<std::byte> aligned(bytes);
  std::memcpy(aligned.data(), linear.bias, static_cast<std::size_t>(bytes));
  AlignedBuffer<float> bias(linear.out_features);
  convert.widen(linear.bias_type, aligned.data(), linear.out_features, bias.data());
  return bias;
}

// Between two reads of the cancellation flag: about 2 ms on one core.
constexpr std::int64_t kFlopsPerTile = 200'000'000;

// Tokens that share one packing of a panel of weights: many, because packing costs as much as multiplying ten (3 % at
// 512), but not more than a tile may take.
std::int64_t RowsPerTile(std::int64_t in_features, std::int64_t panel_width) {
  return std::clamp<std::int64_t>(kFlopsPerTile / (2 * panel_width) / in_features, 48, 768);
}

// The weights as `set` wants them, or null: then they are packed in each tile.
const PackedLinear* PackedFor(const LinearView& linear, InstructionSet set) {
  return linear.packed != nullptr && linear.packed->instruction_set() == set ? linear.packed : nullptr;
}

// A projection cut into tiles of one panel of output features and some tokens.
template <typename T>
struct Tiles {
  Tiles(const Projection<T>& p, const PackedLinear* packed_weights, const LinearKernels& k)
      : projection(p),
        packed(packed_weights),
        kernels(k),
        panel_width(k.panel_width),
        rows_per_tile(RowsPerTile(p.linear.in_features, panel_width)),
        row_tiles(CeilDiv(p.num_rows, rows_per_tile)),
        count(row_tiles * CeilDiv(p.linear.out_features, panel_width)) {}

  LinearTask Tile(std::int64_t i) const {
    const LinearView& linear = projection.linear;
    const std::int64_t row = i % row_tiles * rows_per_tile;
    const std::int64_t first = i / row_tiles * panel_width;
    LinearTask task;
    task.x = projection.x + row * linear.in_features;
    task.x_stride = task.in_features = linear.in_features;
    task.num_rows = std::min(rows_per_tile, projection.num_rows - row);
    task.weight_type = packed != nullptr ? packed->weight_type() : linear.weight_type;
    if (packed != nullptr) {
      task.panels = static_cast<const std::byte*>(packed->panels()) +
                    kernels.packed_bytes(task.weight_type, linear.in_features, first);
    } else {
      task.weight =
          static_cast<const std::byte*>(linear.weight) + first * linear.in_features * ElementSize(linear.weight_type);
    }
    task.bias = bias == nullptr ? nullptr : bias + first;
    task.out_features = std::min(panel_width, linear.out_features - first);
    task.y_type = projection.y_type;
    task.y = static_cast<std::byte*>(projection.y) + (row * linear.out_features + first) * ElementSize(task.y_type);
    task.y_stride = linear.out_features;
    return task;
  }

  Projection<T> projection;
  const PackedLinear* packed;
  const LinearKernels& kernels;
  const float* bias = nullptr;
  std::int64_t panel_width;
  std::int64_t rows_per_tile;
  std::int64_t row_tiles;
  std::int64_t count;
};

// The bias as floats: where it is, or widened to `wide`.
const float* WideBias(const LinearView& linear, const ConvertKernels& convert, AlignedBuffer<float>& wide) {
  if (linear.bias == nullptr || linear.bias_type == DataType::kFloat32) return static_cast<const float*>(linear.bias);
  wide = AlignedBuffer<float>(linear.out_features);
  convert.widen(linear.bias_type, linear.bias, linear.out_features, wide.data());
  return wide.data();
}

// Rows and output features of a FLOAT64 tile.
constexpr std::int64_t kDoubleRows = 8;
constexpr std::int64_t kDoubleFeatures = 64;

// Rows from `row` on and output features from `feature` on.
void ProjectTile(const Projection<double>& projection, const DoubleKernels& kernels, std::int64_t row,
                 std::int64_t feature) {
  const LinearView& linear = projection.linear;
  const auto* bias = static_cast<const double*>(linear.bias);
  auto* y = static_cast<double*>(projection.y);
  const std::int64_t end_row = std::min(row + kDoubleRows, projection.num_rows);
  const std::int64_t end_feature = std::min(feature + kDoubleFeatures, linear.out_features);
  for (std::int64_t o = feature; o < end_feature; ++o) {
    const double* weight = static_cast<const double*>(linear.weight) + o * linear.in_features;
    for (std::int64_t r = row; r < end_row; ++r) {
      const double sum = kernels.dot(projection.x + r * linear.in_features, weight, linear.in_features);
      y[r * linear.out_features + o] = bias == nullptr ? sum : sum + bias[o];
    }
  }
}

}  // namespace

PackedLinear::PackedLinear(const LinearView& linear, InstructionSet instruction_set, Executor* executor)
    : instruction_set_(instruction_set),
      weight_type_(linear.weight_type),
      panels_(Panels(linear, KernelsFor(instruction_set).linear, executor)),
      bias_(Bias(linear, KernelsFor(instruction_set).convert)) {}

std::int64_t PackedLinear::BytesFor(const LinearView& linear, InstructionSet instruction_set) {
  return KernelsFor(instruction_set).linear.packed_bytes(linear.weight_type, linear.in_features, linear.out_features) +
         (linear.bias != nullptr ? 4 * linear.out_features : 0);
}

namespace {

template <typename T>
void ProjectTiles(const ComputeContext& context, const KernelTable& table, const Projection<T>* projections,
                  std::int64_t count, WorkspacePool& pool) {
  const LinearKernels& kernels = table.linear;
  for (std::int64_t p = 0; p < count; ++p) {
    AlignedBuffer<float> wide;
    const LinearView& linear = projections[p].linear;
    Tiles<T> tiles(projections[p], PackedFor(linear, context.instruction_set), kernels);
    tiles.bias = tiles.packed != nullptr ? tiles.packed->bias() : WideBias(linear, table.convert, wide);
    ForEach(context, tiles.count, [&](std::int64_t i) {
      if (IsCancelled(context)) return;
      const LinearTask task = tiles.Tile(i);
      WorkspacePool::Loan workspace(pool);
      kernels.linear(task, (*workspace).Floats(kernels.scratch_size(task)));
    });
  }
}

}  // namespace

void Project(const ComputeContext& context, const Projection<float>* projections, std::int64_t count,
             WorkspacePool& pool) {
  ProjectTiles(context, KernelsFor(context.instruction_set), projections, count, pool);
}

void Project(const ComputeContext& context, const Projection<BFloat16>* projections, std::int64_t count,
             WorkspacePool& pool) {
  ProjectTiles(context, KernelsFor(context.fast_kernels), projections, count, pool);
}

void Project(const ComputeContext& context, const Projection<double>* projections, std::int64_t count, WorkspacePool&) {
  const DoubleKernels& kernels = DoubleKernelsFor(context.instruction_set);
  for (std::int64_t p = 0; p < count; ++p) {
    const Projection<double>& projection = projections[p];
    const std::int64_t columns = CeilDiv(projection.linear.out_features, kDoubleFeatures);
    ForEach(context, CeilDiv(projection.num_rows, kDoubleRows) * columns, [&](std::int64_t i) {
      if (IsCancelled(context)) return;
      ProjectTile(projection, kernels, i / columns * kDoubleRows, i % columns * kDoubleFeatures);
    });
  }
}

double ProjectionScratchBytes(std::int64_t in_features, int num_threads) {
  // Of the widest instruction set.
  constexpr std::int64_t kPanelWidth = 48, kLanes = 16;
  // A packed panel of weights, the sums of a block of rows, and 16-bit weights on their way into the panel.
  const double per_thread = static_cast<double>(in_features + kPanelWidth) * kPanelWidth +
                            static_cast<double>(in_features) * static_cast<double>(kLanes);
  return sizeof(float) * num_threads * per_thread;
}

}  // namespace attend
