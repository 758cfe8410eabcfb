#include "core/attention/projection.h"

#include <algorithm>

#include "core/attention/parallel.h"
#include "core/kernels/kernel_table.h"

namespace attend {
namespace {

// Tokens that share one packing of a panel of weights: enough that packing costs little (1 % at 512), and few enough
// that cancelling is noticed in time.
constexpr std::int64_t kRowsPerTile = 768;

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// A projection cut into tiles of one panel of output features and some tokens.
struct Tiles {
  Tiles(const Projection& p, std::int64_t width)
      : projection(p),
        panel_width(width),
        row_tiles(CeilDiv(p.num_rows, kRowsPerTile)),
        count(row_tiles * CeilDiv(p.linear.out_features, width)) {}

  LinearTask Tile(std::int64_t i) const {
    const LinearView& linear = projection.linear;
    const std::int64_t row = i % row_tiles * kRowsPerTile;
    const std::int64_t first = i / row_tiles * panel_width;
    LinearTask task;
    task.x = projection.x + row * linear.in_features;
    task.x_stride = task.in_features = linear.in_features;
    task.num_rows = std::min(kRowsPerTile, projection.num_rows - row);
    task.weight = linear.weight + first * linear.in_features;
    task.bias = linear.bias == nullptr ? nullptr : linear.bias + first;
    task.out_features = std::min(panel_width, linear.out_features - first);
    task.y = projection.y + row * linear.out_features + first;
    task.y_stride = linear.out_features;
    return task;
  }

  Projection projection;
  std::int64_t panel_width;
  std::int64_t row_tiles;
  std::int64_t count;
};

}  // namespace

void Project(const ComputeContext& context, const Projection* projections, std::int64_t count, WorkspacePool& pool) {
  const LinearKernels& kernels = KernelsFor(context.instruction_set).linear;
  for (std::int64_t p = 0; p < count; ++p) {
    const Tiles tiles(projections[p], kernels.panel_width);
    ForEach(context, tiles.count, [&](std::int64_t i) {
      if (IsCancelled(context)) return;
      const LinearTask task = tiles.Tile(i);
      WorkspacePool::Loan workspace(pool);
      kernels.linear(task, (*workspace).Floats(kernels.scratch_size(task)));
    });
  }
}

}  // namespace attend
