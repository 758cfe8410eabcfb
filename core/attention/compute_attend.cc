#include <algorithm>
#include <cstring>
#include <utility>

#include "core/attention/compute.h"
#include "core/attention/parallel.h"
#include "core/attention/projection.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {
namespace {

// Query, key and value of all heads: projected, or the embeddings as they are.
struct Heads {
  HeadsView query;
  HeadsView key;
  HeadsView value;
  AlignedBuffer<float> memory;
};

std::int64_t Rows(const EmbeddingsView& tokens) { return tokens.batch * tokens.length; }

Heads PlainHeads(const AttendProblem& problem) {
  const EmbeddingsView& q = problem.embeddings();
  const EmbeddingsView& kv = problem.context();
  const HeadsView context = SplitHeads(kv.data, kv.batch, 1, kv.length, kv.dim);
  return {SplitHeads(q.data, q.batch, 1, q.length, q.dim), context, context, {}};
}

Heads ProjectHeads(const AttendProblem& problem, const ComputeContext& context, WorkspacePool& pool) {
  const LayerView& layer = *problem.layer();
  const EmbeddingsView& tokens = problem.embeddings();
  const EmbeddingsView& memory = problem.context();
  const std::int64_t query_size = Rows(tokens) * layer.query.out_features;
  const std::int64_t key_size = Rows(memory) * layer.key.out_features;
  Heads heads;
  heads.memory = AlignedBuffer<float>(query_size + key_size + Rows(memory) * layer.value.out_features);
  float* query = heads.memory.data();
  float* key = query + query_size;
  float* value = key + key_size;
  const Projection projections[] = {
      {tokens.data, Rows(tokens), layer.query, query},
      {memory.data, Rows(memory), layer.key, key},
      {memory.data, Rows(memory), layer.value, value},
  };
  Project(context, projections, 3, pool);
  const std::int64_t batch = problem.batch();
  heads.query = MergedHeads<const float>(query, batch, layer.num_heads, problem.query_length(), problem.head_dim());
  heads.key = MergedHeads<const float>(key, batch, layer.num_kv_heads, problem.key_length(), problem.head_dim());
  heads.value = MergedHeads<const float>(value, batch, layer.num_kv_heads, problem.key_length(), problem.value_dim());
  return heads;
}

// Copies a view to dense [batch, heads, length, dim]; nothing if `to` is null.
void CopyHeads(const HeadsView& from, float* to) {
  if (to == nullptr) return;
  for (std::int64_t b = 0; b < from.batch; ++b) {
    for (std::int64_t h = 0; h < from.heads; ++h) {
      for (std::int64_t t = 0; t < from.length; ++t, to += from.dim) {
        std::memcpy(to, from.Row(b, h, t), static_cast<std::size_t>(from.dim) * sizeof(float));
      }
    }
  }
}

bool ProjectsOutput(const AttendProblem& problem) {
  return problem.layer().has_value() && problem.layer()->output.weight != nullptr;
}

absl::Status Attend(const AttendProblem& problem, const Heads& heads, const AttendOutputs& outputs, float* merged,
                    const ComputeContext& context) {
  const absl::StatusOr<SdpaProblem> sdpa =
      SdpaProblem::Create({heads.query, heads.key, heads.value, problem.options()});
  if (!sdpa.ok()) return sdpa.status();  // Never: what was checked for embeddings holds for their heads.
  SdpaOutputs results;
  if (merged != nullptr) {
    results.output =
        MergedHeads(merged, problem.batch(), problem.num_heads(), problem.query_length(), problem.value_dim());
  }
  results.attention_weights = outputs.attention_weights;
  results.averaged_weights = outputs.averaged_weights;
  results.scores = outputs.scores;
  results.log_sum_exp = outputs.log_sum_exp;
  return ComputeSdpa(*sdpa, results, context);
}

}  // namespace

absl::Status ComputeAttend(const AttendProblem& problem, const AttendOutputs& outputs, const ComputeContext& context) {
  ComputeContext own = context;
  if (IsSmall(problem.Flops())) own.executor = nullptr;
  WorkspacePool pool;
  const Heads heads = problem.layer() ? ProjectHeads(problem, own, pool) : PlainHeads(problem);
  if (IsCancelled(context)) return CancelledStatus();
  CopyHeads(heads.query, outputs.query);
  CopyHeads(heads.key, outputs.key);
  CopyHeads(heads.value, outputs.value);

  const bool projects = ProjectsOutput(problem) && outputs.output != nullptr;
  const std::int64_t rows = problem.batch() * problem.query_length();
  const AlignedBuffer<float> merged(projects ? rows * problem.num_heads() * problem.value_dim() : 0);
  if (absl::Status status = Attend(problem, heads, outputs, projects ? merged.data() : outputs.output, own);
      !status.ok()) {
    return status;
  }
  if (projects) {
    const Projection projection{merged.data(), rows, problem.layer()->output, outputs.output};
    Project(own, &projection, 1, pool);
  }
  return IsCancelled(context) ? CancelledStatus() : absl::OkStatus();
}

}  // namespace attend
