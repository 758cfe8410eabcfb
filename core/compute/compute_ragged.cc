#include <algorithm>
#include <limits>

#include "core/compute/compute_sdpa.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

// Writes `value` to the columns from `first` on of rows [queries) of `view`.
template <typename T>
void FillColumns(const MutableTypedHeadsView& view, const KeyRange& queries, std::int64_t first, T value) {
  if (!view) return;
  const BasicHeadsView<T> numbers = view.As<T>();
  for (std::int64_t h = 0; h < numbers.heads; ++h) {
    for (std::int64_t t = queries.begin; t < queries.end; ++t) {
      T* row = numbers.Row(0, h, t);
      std::fill(row + first, row + numbers.dim, value);
    }
  }
}

// Fills the columns beyond the keys of the sequence.
template <typename T>
void FillBeyond(const SdpaOutputs& outputs, const Sequence& sequence) {
  const std::int64_t first = sequence.num_keys();
  FillColumns<T>(outputs.attention_weights, sequence.queries, first, T{0});
  FillColumns<T>(outputs.averaged_weights, sequence.queries, first, T{0});
  FillColumns<T>(outputs.scores, sequence.queries, first, -std::numeric_limits<T>::infinity());
}

// Where the results of a sequence go within those of the whole.
SdpaOutputs OutputsOf(const SdpaProblem& problem, const SdpaOutputs& outputs, const Sequence& sequence) {
  const std::int64_t columns = std::max<std::int64_t>(sequence.num_keys(), 1);
  const KeyRange& queries = sequence.queries;
  SdpaOutputs part = outputs;
  part.output = RowsAndColumnsOf(outputs.output, queries, problem.value_dim());
  part.attention_weights = RowsAndColumnsOf(outputs.attention_weights, queries, columns);
  part.averaged_weights = RowsAndColumnsOf(outputs.averaged_weights, queries, columns);
  part.scores = RowsAndColumnsOf(outputs.scores, queries, columns);
  part.top_weights.weights = RowsAndColumnsOf(outputs.top_weights.weights, queries, outputs.top_weights.weights.dim);
  part.top_weights.indices = RowsAndColumnsOf(outputs.top_weights.indices, queries, outputs.top_weights.indices.dim);
  if (outputs.log_sum_exp != nullptr) {
    part.log_sum_exp = outputs.log_sum_exp + queries.begin;
    part.log_sum_exp_stride = problem.query_length();
  }
  return part;
}

absl::Status ComputeSequence(const SdpaProblem& problem, const SdpaOutputs& outputs, std::int64_t n,
                             const ComputeContext& context) {
  const Sequence sequence = GetSequence(problem.options(), n);
  if (sequence.num_queries() == 0) return absl::OkStatus();
  if (problem.is_double()) {
    FillBeyond<double>(outputs, sequence);
  } else {
    FillBeyond<float>(outputs, sequence);
  }
  return ComputeSdpa(problem.SequenceAlone(n), OutputsOf(problem, outputs, sequence), context);
}

}  // namespace

// A sequence that is a large part of the whole is computed by all threads; the others one to a thread. Which these are
// is asked twice and not kept: there may be as many as queries, and no bound of scratch counts them.
absl::Status compute_internal::ComputeRagged(const SdpaProblem& problem, const SdpaOutputs& outputs,
                                             const ComputeContext& context) {
  const int threads = NumThreads(context);
  const double total = problem.Flops();
  const auto is_large = [&](std::int64_t n) {
    if (threads == 1 || GetSequence(problem.options(), n).num_queries() == 0) return false;
    return problem.SequenceAlone(n).Flops() * 2 * threads >= total;
  };
  const std::int64_t num_sequences = NumSequences(problem.options());
  for (std::int64_t n = 0; n < num_sequences; ++n) {
    if (!is_large(n)) continue;
    if (absl::Status s = ComputeSequence(problem, outputs, n, context); !s.ok()) return s;
  }
  ComputeContext alone = context;
  alone.executor = nullptr;
  ForEach(context, num_sequences, [&](std::int64_t n) {
    if (is_large(n)) return;
    // The only error is CANCELLED, which WasCancelled reports below.
    ComputeSequence(problem, outputs, n, alone).IgnoreError();
  });
  return WasCancelled(context) ? CancelledStatus() : absl::OkStatus();
}

}  // namespace attend
