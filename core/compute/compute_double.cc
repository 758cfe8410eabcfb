#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "core/base/round.h"
#include "core/compute/compute_sdpa.h"
#include "core/compute/row_panels.h"
#include "core/compute/weight_consumer.h"
#include "core/kernels/double_kernels.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {
namespace {

// Queries of one head that share a tile of keys, and the keys of a tile: at head size 64 these are 64 KiB of keys.
constexpr std::int64_t kRowsPerTile = 8;
constexpr std::int64_t kKeysPerTile = 128;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool AllFinite(const double* numbers, std::int64_t size) {
  return std::all_of(numbers, numbers + size, [](double x) { return std::isfinite(x); });
}

struct Run {
  const SdpaProblem& problem;
  const SdpaOutputs& outputs;
  const ComputeContext& context;
  const DoubleKernels& kernels;
};

DoubleTask MakeTask(const SdpaProblem& problem, std::int64_t b, std::int64_t h) {
  const std::int64_t kv = h / problem.group_size();
  DoubleTask task = MakeDoubleTask(problem, b);
  task.key = problem.key().As<const double>().Row(b, kv, 0);
  task.key_stride = problem.key().row_stride;
  task.value = problem.value().As<const double>().Row(b, kv, 0);
  task.value_stride = problem.value().row_stride;
  return task;
}

DoubleRow MakeRow(const Run& run, std::int64_t b, std::int64_t h, std::int64_t t) {
  DoubleRow row = MakeDoubleRow(run.problem, b, h, t);
  row.query = run.problem.query().As<const double>().Row(b, h, t);
  if (run.outputs.output) row.output = run.outputs.output.As<double>().Row(b, h, t);
  if (run.outputs.attention_weights) row.weights = run.outputs.attention_weights.As<double>().Row(b, h, t);
  if (run.outputs.scores) row.scores = run.outputs.scores.As<double>().Row(b, h, t);
  if (run.outputs.log_sum_exp != nullptr) row.log_sum_exp = LogSumExpOf(run.problem, run.outputs, b, h, t);
  return row;
}

// The rows of a tile and one head from scores to outputs.
class TileRows {
 public:
  // `exponentials` has [queries of the tile, key_length] for what is computed on the way.
  TileRows(const Run& run, const QueryTile& tile, std::int64_t h, double* exponentials)
      : run_(run), task_(MakeTask(run.problem, tile.b, h)), exponentials_(exponentials) {
    for (std::int64_t t = tile.first; t < tile.end; ++t) rows_.push_back(MakeRow(run, tile.b, h, t));
  }

  // Has the attention weights written to [queries of the tile, key_length], and where the outputs say.
  void WriteWeightsTo(double* weights) { consumed_ = weights; }

  // Returns false if cancelled.
  bool Compute() {
    const auto add_scores = [this](std::size_t i, std::int64_t begin, std::int64_t end) {
      run_.kernels.scores(task_, rows_[i], begin, end, Exponentials(i));
    };
    if (!ForEachTile(add_scores)) return false;
    std::vector<DoubleSoftmax> softmax;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      KeepScores(i);
      if (rows_[i].output != nullptr) std::fill(rows_[i].output, rows_[i].output + task_.value_dim, 0.0);
      softmax.push_back(run_.kernels.softmax(rows_[i], Exponentials(i)));
      if (softmax.back().sum == 0) RefuseScoresBelowRange(i, softmax.back());
    }
    const auto add_values = [this](std::size_t i, std::int64_t begin, std::int64_t end) {
      if (rows_[i].output != nullptr) run_.kernels.values(task_, Exponentials(i), begin, end, rows_[i].output);
    };
    if (!ForEachTile(add_values)) return false;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      double* kept = rows_[i].weights;
      double* consumed = consumed_ == nullptr ? nullptr : consumed_ + static_cast<std::int64_t>(i) * task_.key_length;
      if (consumed != nullptr) rows_[i].weights = consumed;
      run_.kernels.finish(task_, rows_[i], softmax[i], Exponentials(i));
      if (consumed != nullptr && kept != nullptr) std::copy(consumed, consumed + task_.key_length, kept);
      RepeatLargeSums(i, softmax[i]);
    }
    return true;
  }

 private:
  bool HasFiniteBias(const DoubleRow& row, std::int64_t j) const {
    if (row.bias == nullptr) return true;
    const std::int64_t at = j * task_.bias_stride;
    return std::isfinite(task_.bias_type == DataType::kFloat64 ? static_cast<const double*>(row.bias)[at]
                                                               : static_cast<const float*>(row.bias)[at]);
  }

  // For a row without any weight. If it sees a key of finite numbers, all its scores are below float64's range, nothing
  // says by how much, and the row becomes NaN. Not beside a finite sink: that is at least 2^970 above any of them, and
  // has all the weight.
  void RefuseScoresBelowRange(std::size_t i, DoubleSoftmax& softmax) const {
    const DoubleRow& row = rows_[i];
    if (std::isfinite(row.sink) || !AllFinite(row.query, task_.head_dim) || !std::isfinite(row.alibi_slope)) return;
    for (std::int64_t j = row.key_begin; j < row.key_end; ++j) {
      if (!IsUnmasked(task_, row, j) || !HasFiniteBias(row, j) ||
          !AllFinite(task_.key + j * task_.key_stride, task_.head_dim)) {
        continue;
      }
      Exponentials(i)[j] = softmax.max = softmax.sum = std::numeric_limits<double>::quiet_NaN();
    }
  }

  // Computes the sum over values again, from scaled terms, if it left float64's range: its quotient by the sum of
  // weights does not.
  void RepeatLargeSums(std::size_t i, const DoubleSoftmax& softmax) const {
    const DoubleRow& row = rows_[i];
    if (row.output == nullptr || !std::isfinite(softmax.sum) || AllFinite(row.output, task_.value_dim)) return;
    constexpr double kUnit = 0x1p-64;
    double* exponentials = Exponentials(i);
    for (std::int64_t j = row.key_begin; j < row.key_end; ++j) {
      const bool masked = exponentials[j] == 0 && std::signbit(exponentials[j]);
      if (!masked && !AllFinite(task_.value + j * task_.value_stride, task_.value_dim)) return;
      exponentials[j] *= kUnit;
    }
    std::fill(row.output, row.output + task_.value_dim, 0.0);
    run_.kernels.values(task_, exponentials, row.key_begin, row.key_end, row.output);
    constexpr double kLargest = std::numeric_limits<double>::max();
    for (std::int64_t v = 0; v < task_.value_dim; ++v) {  // A mean never exceeds its terms.
      row.output[v] = std::clamp(row.output[v] / softmax.sum / kUnit, -kLargest, kLargest);
    }
  }

  double* Exponentials(std::size_t i) const { return exponentials_ + static_cast<std::int64_t>(i) * task_.key_length; }

  // Calls step(i, begin, end) for row i and the keys that it may see, tile by tile, each tile for all rows.
  template <typename Step>
  bool ForEachTile(const Step& step) {
    for (std::int64_t tile = 0; tile < task_.key_length; tile += kKeysPerTile) {
      if (IsCancelled(run_.context)) return false;
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        const std::int64_t begin = std::max(tile, rows_[i].key_begin);
        const std::int64_t end = std::min(tile + kKeysPerTile, rows_[i].key_end);
        if (begin < end) step(i, begin, end);
      }
    }
    return true;
  }

  void KeepScores(std::size_t i) const {
    const DoubleRow& row = rows_[i];
    if (row.scores == nullptr) return;
    std::fill(row.scores, row.scores + task_.key_length, -kInfinity);
    std::copy(Exponentials(i) + row.key_begin, Exponentials(i) + row.key_end, row.scores + row.key_begin);
  }

  const Run& run_;
  const DoubleTask task_;
  double* const exponentials_;
  double* consumed_ = nullptr;
  std::vector<DoubleRow> rows_;
};

// The rows of a tile for each of its heads, their weights going to a consumer where one is needed.
void ComputeHeads(const Run& run, const QueryTile& tile, std::int64_t first_head, std::int64_t end_head) {
  const std::int64_t size = (tile.end - tile.first) * run.problem.key_length();
  const bool consumed = WeightConsumer<double>::IsNeeded(run.outputs);
  const AlignedBuffer<double> memory(consumed ? 2 * size : size);
  double* weights = consumed ? memory.data() + size : nullptr;
  std::optional<WeightConsumer<double>> consumer;
  if (consumed) consumer.emplace(run.problem, run.outputs, tile);
  for (std::int64_t h = first_head; h < end_head; ++h) {
    TileRows rows(run, tile, h, memory.data());
    if (consumed) rows.WriteWeightsTo(weights);
    if (!rows.Compute()) return;
    for (std::int64_t t = tile.first; consumed && t < tile.end; ++t) {
      consumer->Add(h, t, weights + (t - tile.first) * run.problem.key_length());
    }
  }
}

}  // namespace

absl::Status compute_internal::ComputeDouble(const SdpaProblem& problem, const SdpaOutputs& outputs,
                                             const ComputeContext& context) {
  const Run run{problem, outputs, context, DoubleKernelsFor(context.instruction_set)};
  const std::int64_t queries = problem.query_length();
  const std::int64_t tiles = CeilDiv(queries, kRowsPerTile);
  // A consumer wants all heads of a query one after the other.
  const std::int64_t heads_apart = WeightConsumer<double>::IsNeeded(outputs) ? 1 : problem.num_heads();
  const std::int64_t heads_together = problem.num_heads() / heads_apart;
  ForEach(context, problem.batch() * heads_apart * tiles, [&](std::int64_t i) {
    if (IsCancelled(context)) return;
    const std::int64_t first = i % tiles * kRowsPerTile, head = i / tiles % heads_apart;
    const QueryTile tile{i / tiles / heads_apart, first, std::min(first + kRowsPerTile, queries)};
    ComputeHeads(run, tile, head, head + heads_together);
  });
  return WasCancelled(context) ? CancelledStatus() : absl::OkStatus();
}

}  // namespace attend
