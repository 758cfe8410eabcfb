#include "core/compute/row_panels.h"

#include <algorithm>

#include "core/base/round.h"
#include "core/kernels/processor.h"

namespace attend {

namespace {

// 16 MiB: about what the last-level cache holds for one core of a server.
constexpr double kBytesInCaches = 16 << 20;

double KeyValueBytes(const SdpaProblem& problem) {
  const std::int64_t per_key =
      problem.head_dim() * ElementSize(problem.key().type) + problem.value_dim() * ElementSize(problem.value().type);
  return static_cast<double>(problem.batch() * problem.num_kv_heads()) * static_cast<double>(problem.key_length()) *
         static_cast<double>(per_key);
}

// On an Emerald Rapids, whose first level waits for few lines at a time, decoding reads memory a tenth faster so. Many
// rows of 16 bits take longer to compute than to fetch. AMD's processors have not been measured with it.
std::int64_t BytesFarAhead(const SdpaProblem& problem) {
  static const bool is_intel = ThisProcessor().vendor == "GenuineIntel";
  const bool is_wide = ElementSize(problem.key().type) > 2 || problem.query_length() * problem.group_size() <= 4;
  return is_intel && is_wide ? 32 << 10 : 0;
}

}  // namespace

bool IsBeyondCaches(const SdpaProblem& problem) { return KeyValueBytes(problem) > kBytesInCaches; }

AttentionTask MakeTask(const SdpaProblem& problem, KvHead kv) {
  const AttentionOptions& options = problem.options();
  AttentionTask task;
  const auto rows_of = [kv](const TypedHeadsView& tensor, const HeadsView& scales) {
    KeyRows rows{tensor.Row(kv.batch, kv.head, 0), tensor.type, tensor.row_stride};
    if (scales) rows.scales = scales.Row(kv.batch, kv.head, 0), rows.scale_stride = scales.row_stride;
    return rows;
  };
  task.keys = rows_of(problem.key(), problem.key_scales());
  task.values = rows_of(problem.value(), problem.value_scales());
  task.key_length = problem.key_length();
  task.head_dim = problem.head_dim();
  task.value_dim = problem.value_dim();
  const double scale = problem.scale();
  if (options.softcap) {
    task.query_scale = static_cast<float>(scale / *options.softcap);
    task.softcap = static_cast<float>(*options.softcap * kLog2E);
  } else {
    task.query_scale = static_cast<float>(scale * 1.4426950408889634);
  }
  task.has_bias = static_cast<bool>(options.bias);
  task.bias_stride = options.bias.dim_stride;
  task.has_alibi = !options.alibi_slopes.empty();
  task.mask_stride = options.mask.dim_stride;
  if (options.key_mask) task.key_mask = options.key_mask.Row(kv.batch, 0, 0);
  task.key_mask_stride = options.key_mask.dim_stride;
  task.beyond_caches = IsBeyondCaches(problem);
  if (task.beyond_caches) task.far_bytes = BytesFarAhead(problem);
  return task;
}

void MakeRows(const SdpaProblem& problem, const SdpaOutputs& outputs, KvHead kv, std::int64_t first, std::int64_t count,
              QueryRow* rows) {
  const AttentionOptions& options = problem.options();
  const std::int64_t b = kv.batch;
  const std::int64_t group = problem.group_size();
  const std::int64_t offset = problem.PositionOffset(b);
  const HeadsView query = problem.query().As<const float>(), bias = options.bias.As<const float>();
  const MutableHeadsView output = outputs.output.As<float>(), weights = outputs.attention_weights.As<float>();
  const MutableHeadsView scores = outputs.scores.As<float>();
  std::int64_t t = first / group;
  std::int64_t g = first % group;
  KeyRange visible = problem.VisibleKeys(b, t);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t h = kv.head * group + g;
    QueryRow& row = rows[i];
    row = QueryRow();
    if (problem.query().type == DataType::kFloat32) row.query = query.Row(b, h, t);
    row.key_begin = visible.begin;
    row.key_end = visible.end;
    if (options.mask) row.mask = options.mask.Row(b, h, t);
    if (options.bias) row.bias = bias.Row(b, h, t);
    if (!options.alibi_slopes.empty()) row.alibi = -static_cast<float>(options.alibi_slopes[h]) * kLog2E;
    row.position = t + offset;
    if (!options.sinks.empty()) row.sink = static_cast<float>(options.sinks[h]) * kLog2E;
    if (outputs.output && outputs.output.type == DataType::kFloat32) row.output = output.Row(b, h, t);
    if (outputs.attention_weights) row.weights = weights.Row(b, h, t);
    if (outputs.scores) row.scores = scores.Row(b, h, t);
    if (outputs.log_sum_exp != nullptr) {
      row.log_sum_exp = LogSumExpOf(problem, outputs, b, h, t);
    }
    if (++g == group) {
      g = 0;
      ++t;
      if (i + 1 < count) visible = problem.VisibleKeys(b, t);
    }
  }
}

DoubleTask MakeDoubleTask(const SdpaProblem& problem, std::int64_t batch) {
  const AttentionOptions& options = problem.options();
  DoubleTask task;
  task.key_length = problem.key_length();
  task.head_dim = problem.head_dim();
  task.value_dim = problem.value_dim();
  task.scale = problem.scale();
  task.softcap = options.softcap.value_or(0);
  if (options.key_mask) task.key_mask = options.key_mask.Row(batch, 0, 0);
  task.key_mask_stride = options.key_mask.dim_stride;
  task.mask_stride = options.mask.dim_stride;
  task.bias_type = options.bias.type;
  task.bias_stride = options.bias.dim_stride;
  return task;
}

DoubleRow MakeDoubleRow(const SdpaProblem& problem, std::int64_t batch, std::int64_t head, std::int64_t query) {
  const AttentionOptions& options = problem.options();
  const KeyRange visible = problem.VisibleKeys(batch, query);
  DoubleRow row;
  row.key_begin = visible.begin;
  row.key_end = visible.end;
  if (options.mask) row.mask = options.mask.Row(batch, head, query);
  if (options.bias) row.bias = options.bias.Row(batch, head, query);
  if (!options.alibi_slopes.empty()) row.alibi_slope = options.alibi_slopes[head];
  row.position = static_cast<double>(query + problem.PositionOffset(batch));
  if (!options.sinks.empty()) row.sink = options.sinks[head];
  return row;
}

PanelCut::PanelCut(const RowKernels& kernels, std::int64_t num_rows)
    : num_rows_(num_rows),
      multiple_(kernels.row_multiple),
      units_(CeilDiv(num_rows, multiple_)),
      num_panels_(CeilDiv(num_rows, kernels.max_rows)) {}

std::int64_t PanelCut::First(std::int64_t panel) const {
  const std::int64_t longer = units_ % num_panels_;  // The first so many panels have one unit more.
  const std::int64_t unit = panel * (units_ / num_panels_) + std::min(panel, longer);
  return std::min(unit * multiple_, num_rows_);
}

}  // namespace attend
