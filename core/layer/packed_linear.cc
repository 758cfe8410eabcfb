#include "core/layer/packed_linear.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "core/base/round.h"
#include "core/kernels/kernel_table.h"

namespace attend {
namespace {

// What one thread packs at a time: few megabytes of most layers, and tens of iterations for the large ones.
constexpr std::int64_t kPanelsAtATime = 4;

AlignedBuffer<float> Panels(const LinearView& linear, const LinearKernels& kernels, Executor* executor) {
  LinearTask task;
  task.weight = linear.weight;
  task.weight_type = linear.weight_type;
  task.in_features = linear.in_features;
  task.out_features = linear.out_features;
  AlignedBuffer<float> panels(kernels.packed_size(task.in_features, task.out_features));
  if (executor == nullptr) {
    kernels.pack(task, panels.data());
    return panels;
  }
  const std::int64_t block = kPanelsAtATime * kernels.panel_width;
  executor->ParallelFor(CeilDiv(linear.out_features, block), [&](std::int64_t i) {
    const std::int64_t first = i * block * linear.in_features;
    LinearTask part = task;
    part.weight = static_cast<const std::byte*>(task.weight) + first * ElementSize(task.weight_type);
    part.out_features = std::min(block, linear.out_features - i * block);
    kernels.pack(part, panels.data() + first);
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

}  // namespace

PackedLinear::PackedLinear(const LinearView& linear, InstructionSet instruction_set, Executor* executor)
    : instruction_set_(instruction_set),
      panels_(Panels(linear, KernelsFor(instruction_set).linear, executor)),
      bias_(Bias(linear, KernelsFor(instruction_set).convert)) {}

std::int64_t PackedLinear::BytesFor(const LinearView& linear, InstructionSet instruction_set) {
  const std::int64_t panels = KernelsFor(instruction_set).linear.packed_size(linear.in_features, linear.out_features);
  return 4 * (panels + (linear.bias != nullptr ? linear.out_features : 0));
}

}  // namespace attend
