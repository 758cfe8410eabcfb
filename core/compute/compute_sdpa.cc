#include "core/compute/compute_sdpa.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "core/base/round.h"
#include "core/compute/row_group.h"
#include "core/compute/weight_consumer.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

// Panels that share a tile of keys.
constexpr std::int64_t kMaxPanelsPerGroup = 4;
// At least so many groups per thread, if there are panels enough, so that threads finish at about the same time.
constexpr std::int64_t kGroupsPerThread = 4;

// The most rows per key/value head for which chunks of keys are computed side by side: the states of all chunks then
// take at most about a sixteenth of the memory of keys and values.
constexpr std::int64_t kMaxRowsWithChunks = kKeyChunk / 8;

// Whether the keys of several heads lie side by side, as in the layout [B, T, H, E], so that heads read pages of memory
// in common.
bool ShareMemoryPages(const SdpaProblem& problem) {
  return problem.num_kv_heads() > 1 && problem.key().row_stride > problem.key().head_stride;
}

// How the rows of all key/value heads are cut into groups. Does not influence results.
class GroupCut {
 public:
  GroupCut(const SdpaRun& run, int threads)
      : kv_heads_(run.problem.num_kv_heads()),
        num_heads_(run.problem.batch() * kv_heads_),
        num_rows_(RowsPerKvHead(run.problem)),
        panels_(KernelsForRows(run.kernels, num_rows_), num_rows_) {
    const std::int64_t wanted = num_heads_ * panels_.num_panels() / (kGroupsPerThread * threads);
    panels_per_group_ = threads == 1 ? kMaxPanelsPerGroup : std::clamp<std::int64_t>(wanted, 1, kMaxPanelsPerGroup);
    // Few rows are bound by reading keys, which therefore happens once.
    if (AreFewRows(run.kernels, num_rows_)) panels_per_group_ = kMaxPanelsPerGroup;
    groups_per_head_ = CeilDiv(panels_.num_panels(), panels_per_group_);
    if (ShareMemoryPages(run.problem) && AreFewRows(run.kernels, num_rows_) && IsBeyondCaches(run.problem)) {
      in_turns_ = std::min(kMaxHeadsInTurns, kv_heads_);
    }
    const std::int64_t num_chunks = CeilDiv(run.problem.key_length(), kKeyChunk);
    const auto feeds_threads = [&] {
      return threads == 1 || num_groups() / in_turns_ * num_chunks >= kGroupsPerThread * threads;
    };
    while (kv_heads_ % in_turns_ != 0 || (in_turns_ > 1 && !feeds_threads())) --in_turns_;
  }

  std::int64_t num_groups() const { return num_heads_ * groups_per_head_; }

  // How many neighbouring groups, one of each head of one batch entry, take turns with each block of keys: where they
  // read pages of memory in common, and few rows wait for memory. Divides the number of groups.
  std::int64_t groups_in_turns() const { return in_turns_; }

  RowRange Group(std::int64_t i) const {
    const std::int64_t head = i / groups_per_head_;
    const std::int64_t first_panel = i % groups_per_head_ * panels_per_group_;
    const std::int64_t first = panels_.First(first_panel);
    const std::int64_t end = panels_.First(std::min(first_panel + panels_per_group_, panels_.num_panels()));
    return {{head / kv_heads_, head % kv_heads_}, first, end - first};
  }

 private:
  std::int64_t kv_heads_;
  std::int64_t num_heads_;
  std::int64_t num_rows_;
  PanelCut panels_;
  std::int64_t panels_per_group_ = 1;
  std::int64_t groups_per_head_ = 1;
  std::int64_t in_turns_ = 1;
};

// The workspace of this thread's last small problem, for its next: malloc joins and splits memory of that size each
// time, which is a good part of what the problem takes. What is computed between two tiles of another problem finds
// none and makes its own.
class KeptWorkspace {
 public:
  KeptWorkspace() : workspace_(std::move(Kept())) {
    if (workspace_ == nullptr) workspace_ = std::make_unique<Workspace>();
    workspace_->key_bounds.clear();  // They are of other keys.
  }
  ~KeptWorkspace() {
    if (!kIsSanitized && workspace_->num_bytes() <= kMostKeptBytes) Kept() = std::move(workspace_);
  }
  KeptWorkspace(const KeptWorkspace&) = delete;
  KeptWorkspace& operator=(const KeptWorkspace&) = delete;
  Workspace& operator*() const { return *workspace_; }

 private:
  // Twice what eight rows of 64 numbers and a block of keys take.
  static constexpr std::size_t kMostKeptBytes = std::size_t{48} << 10;

  static std::unique_ptr<Workspace>& Kept() {
    thread_local std::unique_ptr<Workspace> kept;
    return kept;
  }

  std::unique_ptr<Workspace> workspace_;
};

void ComputeGroups(const SdpaRun& run, const GroupCut& cut) {
  if (cut.num_groups() == 1 || run.context.executor == nullptr) {
    const KeptWorkspace workspace;
    for (std::int64_t i = 0; i < cut.num_groups() && !run.Cancelled(); ++i) {
      RowGroup(run, cut.Group(i), *workspace).Compute();
    }
    return;
  }
  WorkspacePool pool;
  ForEach(run.context, cut.num_groups(), [&](std::int64_t i) {
    if (run.Cancelled()) return;
    WorkspacePool::Loan workspace(pool);
    RowGroup(run, cut.Group(i), *workspace).Compute();
  });
}

// One chunk of keys for the groups from `first` on that take turns.
void ComputeChunkInTurns(const SdpaRun& run, const GroupCut& cut, std::int64_t first, std::int64_t chunk,
                         WorkspacePool& pool, absl::FunctionRef<float*(std::int64_t)> states) {
  std::deque<WorkspacePool::Loan> workspaces;
  std::deque<RowGroup> groups;
  for (std::int64_t g = first; g < first + cut.groups_in_turns(); ++g) {
    workspaces.emplace_back(pool);
    groups.emplace_back(run, cut.Group(g), *workspaces.back()).StartChunk(states(g));
  }
  const std::int64_t keys_end = std::min((chunk + 1) * kKeyChunk, run.problem.key_length());
  for (std::int64_t key = chunk * kKeyChunk; key < keys_end; key += kKeyBlock) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (!groups[g].AddToChunk(key, std::min(key + kKeyBlock, keys_end), groups[(g + 1) % groups.size()])) return;
    }
  }
}

// For fewer groups than threads, as in decoding: chunks of keys side by side, merged in order at the end.
void ComputeChunksOfGroups(const SdpaRun& run, const GroupCut& cut) {
  const std::int64_t num_chunks = CeilDiv(run.problem.key_length(), kKeyChunk);
  WorkspacePool pool;
  std::vector<AlignedBuffer<float>> states(static_cast<std::size_t>(cut.num_groups()));
  std::vector<std::int64_t> state_sizes(states.size());
  for (std::size_t g = 0; g < states.size(); ++g) {
    WorkspacePool::Loan workspace(pool);
    state_sizes[g] = RowGroup(run, cut.Group(static_cast<std::int64_t>(g)), *workspace).state_size();
    states[g] = AlignedBuffer<float>(state_sizes[g] * num_chunks);
  }
  const std::int64_t turns = cut.num_groups() / cut.groups_in_turns();
  ForEach(run.context, turns * num_chunks, [&](std::int64_t i) {
    if (run.Cancelled()) return;
    const std::int64_t first = i % turns * cut.groups_in_turns(), chunk = i / turns;
    const auto states_of = [&](std::int64_t group) {
      const auto g = static_cast<std::size_t>(group);
      return states[g].data() + chunk * state_sizes[g];
    };
    if (cut.groups_in_turns() > 1) return ComputeChunkInTurns(run, cut, first, chunk, pool, states_of);
    WorkspacePool::Loan workspace(pool);
    RowGroup(run, cut.Group(first), *workspace).ComputeChunk(chunk, states_of(first));
  });
  ForEach(run.context, cut.num_groups(), [&](std::int64_t i) {
    if (run.Cancelled()) return;
    WorkspacePool::Loan workspace(pool);
    RowGroup(run, cut.Group(i), *workspace).MergeAndFinish(num_chunks, states[static_cast<std::size_t>(i)].data());
  });
}

// The rows of a tile for all heads one after the other, their weights going to a consumer.
void ComputeTileForConsumer(const SdpaRun& run, const QueryTile& tile, WorkspacePool& pool) {
  const SdpaProblem& problem = run.problem;
  const std::int64_t group = problem.group_size();
  const std::int64_t length = problem.key_length();
  const std::int64_t max_rows = run.kernels.prefill.max_rows;
  WorkspacePool::Loan workspace(pool);
  const bool own_weights = !run.outputs.attention_weights;
  const AlignedBuffer<float> scratch(own_weights ? std::min(max_rows, (tile.end - tile.first) * group) * length : 0);
  WeightConsumer<float> consumer(problem, run.outputs, tile);
  for (std::int64_t kv = 0; kv < problem.num_kv_heads(); ++kv) {
    for (std::int64_t row = tile.first * group; row < tile.end * group; row += max_rows) {
      const std::int64_t count = std::min(max_rows, tile.end * group - row);
      const KvHead kv_head{tile.b, kv};
      if (!RowGroup(run, {kv_head, row, count}, *workspace, own_weights ? scratch.data() : nullptr).Compute()) return;
      for (std::int64_t i = 0; i < count; ++i) {
        const RowCoordinates at = CoordinatesOfRow(problem, kv_head, row + i);
        consumer.Add(at.head, at.query, (*workspace).rows[static_cast<std::size_t>(i)].weights);
      }
    }
  }
}

void ComputeForConsumer(const SdpaRun& run) {
  const std::int64_t queries = run.problem.query_length();
  const std::int64_t per_tile = std::max<std::int64_t>(1, run.kernels.prefill.max_rows / run.problem.group_size());
  const std::int64_t tiles = CeilDiv(queries, per_tile);
  WorkspacePool pool;
  ForEach(run.context, run.problem.batch() * tiles, [&](std::int64_t i) {
    const std::int64_t first = i % tiles * per_tile;
    if (!run.Cancelled()) ComputeTileForConsumer(run, {i / tiles, first, std::min(first + per_tile, queries)}, pool);
  });
}

}  // namespace

FastKernels FastKernelsFor(const AttentionOptions& options, const std::array<DataType, 3>& types, std::int64_t head_dim,
                           FastKernels available) {
  const bool computes = head_dim % 2 == 0 && std::all_of(types.begin(), types.end(),
                                                         [](DataType type) { return type == DataType::kBFloat16; });
  return computes && options.precision == Precision::kFast ? available : FastKernels::kNone;
}

FastKernels FastKernelsOf(const SdpaProblem& problem, FastKernels available) {
  return FastKernelsFor(problem.options(), {problem.query().type, problem.key().type, problem.value().type},
                        problem.head_dim(), available);
}

absl::Status ComputeSdpa(const SdpaProblem& problem, const SdpaOutputs& outputs, const ComputeContext& context) {
  const ComputeContext own = ContextFor(context, problem.Flops());
  if (IsRagged(problem.options())) return compute_internal::ComputeRagged(problem, outputs, own);
  if (problem.is_double()) return compute_internal::ComputeDouble(problem, outputs, own);
  const FastKernels fast = FastKernelsOf(problem, own.fast_kernels);
  const SdpaRun run{problem, outputs, own,
                    fast == FastKernels::kNone ? KernelsFor(own.instruction_set) : KernelsFor(fast)};
  const int threads = NumThreads(own);
  if (WeightConsumer<float>::IsNeeded(outputs)) {
    ComputeForConsumer(run);
  } else {
    const GroupCut cut(run, threads);
    const bool few_groups = threads > 1 && cut.num_groups() < threads * kGroupsPerThread / 2;
    if ((few_groups || ShareMemoryPages(problem)) && RowsPerKvHead(problem) <= kMaxRowsWithChunks &&
        problem.key_length() > kKeyChunk) {
      ComputeChunksOfGroups(run, cut);
    } else {
      ComputeGroups(run, cut);
    }
  }
  return WasCancelled(own) ? CancelledStatus() : absl::OkStatus();
}

}  // namespace attend
