#include "core/compute/widened_rows.h"

#include <algorithm>

#include "core/base/round.h"
#include "core/compute/workspace.h"

namespace attend {

void InputRows::Widen(const ConvertKernels& convert, KvHead head, std::int64_t j, float* to) const {
  const std::byte* row = tensor.Row(head.batch, head.head, j);
  if (tensor.type != DataType::kInt8 || scales == nullptr) return convert.widen(tensor.type, row, tensor.dim, to);
  convert.dequantize(reinterpret_cast<const std::int8_t*>(row), tensor.dim, *scales->Row(head.batch, head.head, j), to);
}

WidenedRows::Copy WidenedRows::MakeCopy(bool needed, std::int64_t dim, std::int64_t num_rows) {
  return {needed, PadToCacheLine(dim), num_rows, nullptr};
}

WidenedRows::WidenedRows(const SdpaProblem& problem, const SdpaOutputs& outputs, const ConvertKernels& convert,
                         const RowKernels& kernels, const RowRange& range)
    : problem_(problem), outputs_(outputs), convert_(convert), range_(range), pack_values_(kernels.pack_values) {
  const auto is_narrow = [](DataType type) { return type != DataType::kFloat32; };
  const std::int64_t tile = std::min(kKeysPerTile, problem.key_length());
  queries_ = MakeCopy(is_narrow(problem.query().type), problem.head_dim(), range.count);
  keys_ = MakeCopy(!kernels.reads_narrow && is_narrow(problem.key().type), problem.head_dim(), tile);
  values_ = MakeCopy(!kernels.reads_narrow && is_narrow(problem.value().type), problem.value_dim(), tile);
  // Some kernels fill blocks of 32 keys up.
  value_pairs_ = MakeCopy(pack_values_ != nullptr, problem.value_dim(), RoundUp<std::int64_t>(tile, 32) / 2);
  results_ = MakeCopy(outputs.output && is_narrow(outputs.output.type), problem.value_dim(), range.count);
}

std::int64_t WidenedRows::size() const {
  return queries_.size() + keys_.size() + values_.size() + value_pairs_.size() + results_.size();
}

void WidenedRows::UseMemory(float* memory, QueryRow* rows) {
  for (Copy* copy : {&queries_, &keys_, &values_, &value_pairs_, &results_}) {
    copy->memory = memory;
    memory += copy->size();
  }
  for (std::int64_t i = 0; i < range_.count; ++i) {
    const RowCoordinates at = CoordinatesOfRow(problem_, range_.kv, range_.first + i);
    if (queries_.needed) {
      QueriesOf(problem_).Widen(convert_, {range_.kv.batch, at.head}, at.query, queries_.Row(i));
      rows[i].query = queries_.Row(i);
    }
    if (results_.needed) rows[i].output = results_.Row(i);
  }
}

void WidenedRows::WidenRows(const InputRows& rows, std::int64_t begin, std::int64_t end, const Copy& copy) const {
  const TypedHeadsView& tensor = rows.tensor;
  if (tensor.row_stride == copy.stride && tensor.type != DataType::kInt8) {
    // In one go; what follows the last row may not be the tensor's.
    convert_.widen(tensor.type, tensor.Row(range_.kv.batch, range_.kv.head, begin),
                   (end - begin - 1) * copy.stride + tensor.dim, copy.memory);
    return;
  }
  for (std::int64_t j = begin; j < end; ++j) rows.Widen(convert_, range_.kv, j, copy.Row(j - begin));
}

void WidenedRows::WidenKeys(std::int64_t begin, std::int64_t end, AttentionTask& task) const {
  if (keys_.needed) {
    WidenRows(KeysOf(problem_), begin, end, keys_);
    task.keys = {keys_.memory, DataType::kFloat32, keys_.stride, begin};
  }
  if (values_.needed) {
    WidenRows(ValuesOf(problem_), begin, end, values_);
    task.values = {values_.memory, DataType::kFloat32, values_.stride, begin};
  }
  if (value_pairs_.needed) {
    auto* pairs = reinterpret_cast<std::uint32_t*>(value_pairs_.memory);
    pack_values_(task, begin, end, pairs, value_pairs_.stride);
    task.value_pairs = pairs;
    task.value_pairs_stride = value_pairs_.stride;
    task.first_value_pair = begin;
  }
}

void WidenedRows::NarrowOutputs(const QueryRow* rows) const {
  if (!results_.needed) return;
  for (std::int64_t i = 0; i < range_.count; ++i) {
    const RowCoordinates at = CoordinatesOfRow(problem_, range_.kv, range_.first + i);
    convert_.narrow(outputs_.output.type, rows[i].output, outputs_.output.dim,
                    outputs_.output.Row(range_.kv.batch, at.head, at.query));
  }
}

}  // namespace attend
