#include "core/compute/ragged.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/compute/parallel.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

// An empty set of keys is one key that is not valid: a problem has at least one.
constexpr std::int64_t kNoKeys[] = {0};

TypedHeadsView Rows(TypedHeadsView view, std::int64_t begin, std::int64_t length) {
  view.data = view.Row(0, 0, begin);
  view.length = length;
  return view;
}

// Rows of queries, and the first columns, of a view with a column for each key.
template <typename View>
View RowsAndColumns(View view, const KeyRange& queries, std::int64_t columns) {
  if (!view) return view;
  view.data = view.Row(0, 0, queries.begin);
  view.length = queries.end - queries.begin;
  view.dim = columns;
  return view;
}

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

// What the columns hold that stand for no key of the sequence.
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
  part.output = RowsAndColumns(outputs.output, queries, problem.value_dim());
  part.attention_weights = RowsAndColumns(outputs.attention_weights, queries, columns);
  part.averaged_weights = RowsAndColumns(outputs.averaged_weights, queries, columns);
  part.scores = RowsAndColumns(outputs.scores, queries, columns);
  part.top_weights.weights = RowsAndColumns(outputs.top_weights.weights, queries, outputs.top_weights.weights.dim);
  part.top_weights.indices = RowsAndColumns(outputs.top_weights.indices, queries, outputs.top_weights.indices.dim);
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
  const absl::StatusOr<SdpaProblem> part = SequenceProblem(problem, n);
  if (!part.ok()) return part.status();  // Never: what was checked for the whole holds for its parts.
  return ComputeSdpa(*part, OutputsOf(problem, outputs, sequence), context);
}

}  // namespace

absl::StatusOr<SdpaProblem> SequenceProblem(const SdpaProblem& problem, std::int64_t n) {
  const Sequence sequence = GetSequence(problem.options(), n);
  const std::int64_t columns = std::max<std::int64_t>(sequence.num_keys(), 1);
  const std::int64_t first_key = std::min(sequence.keys.begin, problem.key_length() - columns);
  SdpaProblem::Spec part{Rows(problem.query(), sequence.queries.begin, sequence.num_queries()),
                         Rows(problem.key(), first_key, columns), Rows(problem.value(), first_key, columns),
                         WithoutSequences(problem.options())};
  part.options.mask = RowsAndColumns(problem.options().mask, sequence.queries, columns);
  part.options.bias = RowsAndColumns(problem.options().bias, sequence.queries, columns);
  if (sequence.num_keys() == 0) part.options.key_lengths = kNoKeys;
  return SdpaProblem::Create(part);
}

// A sequence that is a large part of the whole has all threads to itself; the others are handed out one to a thread.
absl::Status ComputeRagged(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context) {
  const int threads = NumThreads(context);
  const double total = problem.Flops();
  std::vector<std::int64_t> small;
  for (std::int64_t n = 0; n < NumSequences(problem.options()); ++n) {
    const absl::StatusOr<SdpaProblem> part = SequenceProblem(problem, n);
    if (threads == 1 || !part.ok() || part->Flops() * 2 * threads < total) {
      small.push_back(n);
    } else if (absl::Status s = ComputeSequence(problem, outputs, n, context); !s.ok()) {
      return s;
    }
  }
  ComputeContext alone = context;
  alone.executor = nullptr;
  ForEach(context, static_cast<std::int64_t>(small.size()), [&](std::int64_t i) {
    // Its one error is CANCELLED, which is asked for below.
    ComputeSequence(problem, outputs, small[static_cast<std::size_t>(i)], alone).IgnoreError();
  });
  return IsCancelled(context) ? CancelledStatus() : absl::OkStatus();
}

}  // namespace attend
