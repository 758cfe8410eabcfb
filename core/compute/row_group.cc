#include "core/compute/row_group.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/round.h"
#include "core/compute/exact_rows.h"

namespace attend {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// If the magnitudes of a dot product's terms sum to less than this, none of its partial sums overflows float32.
constexpr double kSurelyInRange = 0x1p126;

// Up to this scale, a sum of products below 2^-126 moves no score by more than 2^-26.
constexpr double kLargestFlushedScale = 0x1p100;

// Where the keys that any row of the panel may see begin (rounded down to a block) and end.
void FindKeys(GroupPanel& panel) {
  std::int64_t begin = std::numeric_limits<std::int64_t>::max();
  std::int64_t end = 0;
  for (std::int64_t r = 0; r < panel.num_rows; ++r) {
    const QueryRow& row = panel.rows[r];
    if (row.key_begin >= row.key_end) continue;
    begin = std::min(begin, row.key_begin);
    end = std::max(end, row.key_end);
  }
  panel.key_begin = std::min(begin, end) / kKeyBlock * kKeyBlock;
  panel.key_end = end;
}

// The part of keys [begin, end) that rows of any panel may see.
KeyRange KeysOfTile(const std::vector<GroupPanel>& panels, std::int64_t begin, std::int64_t end) {
  KeyRange keys{end, begin};
  for (const GroupPanel& panel : panels) {
    if (panel.key_begin >= panel.key_end) continue;
    keys.begin = std::min(keys.begin, std::max(begin, panel.key_begin));
    keys.end = std::max(keys.end, std::min(end, panel.key_end));
  }
  return keys;
}

// Keeps -infinity as the scores of keys before the first and after the last that any row sees.
void KeepMaskedEnds(const GroupPanel& panel, std::int64_t key_length) {
  for (std::int64_t r = 0; r < panel.num_rows; ++r) {
    float* kept = panel.rows[r].kept_scores();
    if (kept == nullptr) return;
    std::fill(kept, kept + panel.key_begin, -std::numeric_limits<float>::infinity());
    std::fill(kept + panel.key_end, kept + key_length, -std::numeric_limits<float>::infinity());
  }
}

}  // namespace

RowGroup::RowGroup(const SdpaRun& run, const RowRange& range, Workspace& workspace, float* weights)
    : run_(run),
      range_(range),
      kernels_(KernelsForRows(run.kernels, range.count)),
      workspace_(workspace),
      task_(MakeTask(run.problem, range.kv)),
      widened_(run.problem, run.outputs, run.kernels.convert, kernels_, range) {
  workspace.rows.resize(static_cast<std::size_t>(range.count));
  QueryRow* rows = workspace.rows.data();
  MakeRows(run.problem, run.outputs, range.kv, range.first, range.count, rows);
  if (weights != nullptr) {
    for (std::int64_t i = 0; i < range.count; ++i) rows[i].weights = weights + i * task_.key_length;
  }

  const PanelCut cut(kernels_, range.count);
  workspace.panels.resize(static_cast<std::size_t>(cut.num_panels()));
  std::int64_t packed_size = 0;
  std::int64_t scratch_size = 0;
  for (std::int64_t i = 0; i < cut.num_panels(); ++i) {
    GroupPanel& panel = workspace.panels[static_cast<std::size_t>(i)];
    const std::int64_t count = cut.First(i + 1) - cut.First(i);
    panel = GroupPanel{{.task = &task_, .rows = rows + cut.First(i), .num_rows = count}};
    panel.packed_offset = packed_size;
    panel.state_offset = state_size_;
    packed_size += PadToCacheLine(kernels_.packed_size(task_, count));
    state_size_ += PadToCacheLine(kernels_.state_size(task_, count));
    scratch_size = std::max(scratch_size, PadToCacheLine(kernels_.scratch_size(task_, count)));
    FindKeys(panel);
  }
  totals_ = workspace.Floats(packed_size + 2 * state_size_ + scratch_size + widened_.size());
  chunks_ = totals_ + state_size_;
  float* scratch = chunks_ + state_size_;
  widened_.UseMemory(scratch + scratch_size + packed_size, rows);
  for (GroupPanel& panel : workspace.panels) {
    panel.scratch = scratch;
    panel.packed = scratch + scratch_size + panel.packed_offset;
    panel.queries = kernels_.pack(panel);
  }
}

void RowGroup::Reset(float* states) {
  for (const GroupPanel& panel : workspace_.panels) kernels_.reset(panel, states + panel.state_offset);
}

void RowGroup::Merge(const float* states) {
  for (const GroupPanel& panel : workspace_.panels) {
    kernels_.merge(panel, states + panel.state_offset, totals_ + panel.state_offset);
  }
}

// The largest magnitude among `keys`, which are those of the tile that begins with key `tile`.
float RowGroup::LargestKey(std::int64_t tile, const KeyRange& keys) {
  std::vector<KeyBound>& bounds = workspace_.key_bounds;
  if (bounds.empty()) bounds.resize(static_cast<std::size_t>(CeilDiv(task_.key_length, kKeysPerTile)));
  KeyBound& bound = bounds[static_cast<std::size_t>(tile / kKeysPerTile)];
  const bool known = bound.kv.batch == range_.kv.batch && bound.kv.head == range_.kv.head &&
                     bound.keys.begin == keys.begin && bound.keys.end == keys.end;
  if (!known) bound = {range_.kv, keys, kernels_.largest_key(task_, keys.begin, keys.end)};
  return bound.largest;
}

// With `first_into_total`, a panel's first chunk goes straight into its empty total: merging would not change a bit.
bool RowGroup::AddChunk(std::int64_t chunk, bool first_into_total) {
  const std::int64_t chunk_end = std::min((chunk + 1) * kKeyChunk, task_.key_length);
  for (std::int64_t tile = chunk * kKeyChunk; tile < chunk_end; tile += kKeysPerTile) {
    if (!AddTile(tile, std::min(tile + kKeysPerTile, chunk_end), first_into_total)) return false;
  }
  return true;
}

// Keys [tile, tile_end) of one chunk.
bool RowGroup::AddTile(std::int64_t tile, std::int64_t tile_end, bool first_into_total) {
  const KeyRange keys = KeysOfTile(workspace_.panels, tile, tile_end);
  if (keys.begin >= keys.end) return true;
  widened_.WidenKeys(keys.begin, keys.end, task_);
  const double largest_key = kernels_.largest_key != nullptr ? LargestKey(tile, keys) : kInfinity;
  for (GroupPanel& panel : workspace_.panels) {
    const std::int64_t begin = std::max(keys.begin, panel.key_begin);
    const std::int64_t end = std::min(keys.end, panel.key_end);
    if (begin >= end) continue;
    if (run_.Cancelled()) return false;
    // False for NaN: the panel may then overflow.
    const bool in_range = static_cast<double>(task_.head_dim) * panel.queries.largest * largest_key < kSurelyInRange;
    panel.may_overflow = !in_range;
    const bool into_total = first_into_total && tile / kKeyChunk == panel.key_begin / kKeyChunk;
    kernels_.accumulate(panel, begin, end, (into_total ? totals_ : chunks_) + panel.state_offset);
  }
  return true;
}

bool RowGroup::AddKeys() {
  std::int64_t begin = task_.key_length;
  std::int64_t end = 0;
  for (const GroupPanel& panel : workspace_.panels) {
    begin = std::min(begin, panel.key_begin);
    end = std::max(end, panel.key_end);
  }
  Reset(totals_);
  for (std::int64_t chunk = begin / kKeyChunk; chunk * kKeyChunk < end; ++chunk) {
    const auto merges = [chunk](const GroupPanel& panel) {
      return chunk > panel.key_begin / kKeyChunk && chunk * kKeyChunk < panel.key_end;
    };
    for (const GroupPanel& panel : workspace_.panels) {
      if (merges(panel)) kernels_.reset(panel, chunks_ + panel.state_offset);
    }
    if (!AddChunk(chunk, true)) return false;
    for (const GroupPanel& panel : workspace_.panels) {
      if (merges(panel)) {
        kernels_.merge(panel, chunks_ + panel.state_offset, totals_ + panel.state_offset);
      }
    }
  }
  return true;
}

void RowGroup::Finish() {
  for (GroupPanel& panel : workspace_.panels) {
    KeepMaskedEnds(panel, task_.key_length);
    panel.doubtful = kernels_.finish(panel, totals_ + panel.state_offset);
  }
}

bool RowGroup::Repeat() {
  task_.select_values = true;
  if (!AddKeys()) return false;
  Finish();
  return true;
}

// A weight of zero does not mask a value that is NaN or infinite. Such values are rare: they are noticed in the result,
// and the group is computed again with selected values.
bool RowGroup::FinishOrRepeat() {
  Finish();
  std::uint64_t not_finite = 0;
  for (const GroupPanel& panel : workspace_.panels) not_finite |= panel.doubtful.not_finite;
  if (not_finite != 0 && !Repeat()) return false;
  if (HasScoresToComplete()) {
    ExactRows exact(run_, range_.kv);
    CompleteScores(exact);
  }
  if (FindDoubtfulRows() != 0 && !ComputeDoubtfulRows()) return false;
  widened_.NarrowOutputs(workspace_.rows.data());
  return true;
}

RowCoordinates RowGroup::CoordinatesOf(const GroupPanel& panel, std::int64_t r) const {
  return CoordinatesOfRow(run_.problem, range_.kv, range_.first + (panel.rows - workspace_.rows.data()) + r);
}

// Products that a kernel takes for 0 are lost where the scale makes numbers of them. With a softcap, it is divided by
// that in `query_scale`.
bool RowGroup::LeavesRange(std::int64_t head) const {
  const double scale = std::abs(double{task_.query_scale}) * std::max(1.0, double{task_.softcap});
  const double flushed = scale * static_cast<double>(task_.head_dim);
  return (kernels_.flushes_products && flushed > kLargestFlushedScale) || LeavesFloatRange(run_.problem, task_, head);
}

// Returns 0 if there are none.
std::uint64_t RowGroup::FindDoubtfulRows() {
  std::uint64_t any = 0;
  bool leaves_range = LeavesRange(0);
  for (GroupPanel& panel : workspace_.panels) {
    panel.leaves_range = panel.below_range = 0;
    for (std::int64_t r = 0; r < panel.num_rows; ++r) {
      if (task_.has_alibi) leaves_range = LeavesRange(CoordinatesOf(panel, r).head);
      panel.leaves_range |= std::uint64_t{leaves_range} << r;
      if (!panel.queries.below_range) continue;
      panel.below_range |= std::uint64_t{ScalesBelowFloatRange(task_, panel.rows[r].query)} << r;
    }
    any |= panel.doubtful.not_finite | panel.doubtful.nan_sum | panel.doubtful.no_keys | panel.leaves_range |
           panel.below_range;
  }
  return any;
}

// Whether the float32 results of doubtful row r are not what its inputs say.
bool RowGroup::FailsInFloat32(const GroupPanel& panel, std::int64_t r, ExactRows& exact) const {
  const DoubtfulRows& doubtful = panel.doubtful;
  const std::uint64_t surely = doubtful.not_finite | doubtful.nan_sum | doubtful.no_keys | panel.leaves_range;
  const RowCoordinates at = CoordinatesOf(panel, r);
  const bool nan_sum = (doubtful.nan_sum >> r & 1) != 0;
  switch (exact.Inspect(at, nan_sum)) {
    case ExactRows::Inputs::kFinite: return (surely >> r & 1) != 0 || exact.ShowsLostNumbers();
    case ExactRows::Inputs::kNoKeys: return nan_sum || exact.LosesSink(at, panel.rows[r]);
    case ExactRows::Inputs::kNan: return false;
    case ExactRows::Inputs::kNotFinite: break;
  }
  return ((panel.leaves_range | panel.below_range) >> r & 1) != 0 || exact.MayLeaveFloatRange(task_);
}

// Indices of rows whose float32 results are not what the inputs say. `repeat` becomes true when a row may be NaN only
// because what an infinite input made was noticed as an overflow.
std::vector<std::int64_t> RowGroup::RowsToComputeAgain(ExactRows& exact, bool& repeat) const {
  std::vector<std::int64_t> rows;
  for (const GroupPanel& panel : workspace_.panels) {
    const DoubtfulRows& doubtful = panel.doubtful;
    const std::uint64_t doubted =
        doubtful.not_finite | doubtful.nan_sum | doubtful.no_keys | panel.leaves_range | panel.below_range;
    for (std::int64_t r = 0; r < panel.num_rows; ++r) {
      if ((doubted >> r & 1) == 0) continue;
      const bool again = FailsInFloat32(panel, r, exact);
      if (again) rows.push_back(panel.rows - workspace_.rows.data() + r);
      repeat = repeat || (!again && (doubtful.nan_sum >> r & 1) != 0);
    }
  }
  return rows;
}

bool RowGroup::ComputeDoubtfulRows() {
  ExactRows exact(run_, range_.kv);
  bool repeat = false;
  const std::vector<std::int64_t> rows = RowsToComputeAgain(exact, repeat);
  if (repeat) {
    task_.notice_overflow = false;
    if (!Repeat()) return false;
    if (HasScoresToComplete()) CompleteScores(exact);  // Not another one: one is counted for each thread.
  }
  for (const std::int64_t i : rows) {
    const RowCoordinates at = CoordinatesOfRow(run_.problem, range_.kv, range_.first + i);
    if (!exact.Compute(at, workspace_.rows[static_cast<std::size_t>(i)])) return false;
  }
  return true;
}

bool RowGroup::HasScoresToComplete() const { return run_.outputs.scores && (task_.has_bias || task_.has_alibi); }

void RowGroup::CompleteScores(ExactRows& exact) const {
  for (const GroupPanel& panel : workspace_.panels) {
    for (std::int64_t r = 0; r < panel.num_rows; ++r) exact.CompleteScores(CoordinatesOf(panel, r), panel.rows[r]);
  }
}

bool RowGroup::Compute() { return AddKeys() && FinishOrRepeat(); }

void RowGroup::StartChunk(float* states) {
  chunks_ = states;
  Reset(states);
}

bool RowGroup::ComputeChunk(std::int64_t chunk, float* states) {
  StartChunk(states);
  return AddChunk(chunk, false);
}

bool RowGroup::AddToChunk(std::int64_t begin, std::int64_t end, const RowGroup& next) {
  const auto ahead = [&](const TypedHeadsView& tensor) {
    const std::int64_t block =
        next.range_.kv.head <= range_.kv.head ? kKeyBlock : 0;  // The turn's last: the next keys.
    return (next.range_.kv.head - range_.kv.head) * tensor.head_stride + block * tensor.row_stride;
  };
  task_.keys_ahead = ahead(run_.problem.key());
  task_.values_ahead = ahead(run_.problem.value());
  return AddTile(begin, end, false);
}

bool RowGroup::MergeAndFinish(std::int64_t num_chunks, const float* states) {
  Reset(totals_);
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) Merge(states + chunk * state_size_);
  return FinishOrRepeat();
}

}  // namespace attend
