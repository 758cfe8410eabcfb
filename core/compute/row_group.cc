#include "core/compute/row_group.h"

#include <algorithm>
#include <limits>

#include "core/compute/exact_rows.h"

namespace attend {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// No sum of products whose magnitudes sum up to less leaves float32's range, however it is rounded on the way.
constexpr double kSurelyInRange = 0x1p126;

// Where the keys that any row of the panel may see begin (rounded down to a block) and end.
void FindKeys(PanelPlace& place) {
  std::int64_t begin = std::numeric_limits<std::int64_t>::max();
  std::int64_t end = 0;
  for (std::int64_t r = 0; r < place.panel.num_rows; ++r) {
    const QueryRow& row = place.panel.rows[r];
    if (row.key_begin >= row.key_end) continue;
    begin = std::min(begin, row.key_begin);
    end = std::max(end, row.key_end);
  }
  place.key_begin = std::min(begin, end) / kKeyBlock * kKeyBlock;
  place.key_end = end;
}

// What panels see of keys [begin, end).
KeyRange KeysOfTurn(const std::vector<PanelPlace>& panels, std::int64_t begin, std::int64_t end) {
  KeyRange keys{end, begin};
  for (const PanelPlace& place : panels) {
    if (place.key_begin >= place.key_end) continue;
    keys.begin = std::min(keys.begin, std::max(begin, place.key_begin));
    keys.end = std::max(keys.end, std::min(end, place.key_end));
  }
  return keys;
}

// Scores of keys before the first and behind the last that any row sees.
void KeepMaskedEnds(const PanelPlace& place, std::int64_t key_length) {
  for (std::int64_t r = 0; r < place.panel.num_rows; ++r) {
    float* kept = place.panel.rows[r].kept_scores();
    if (kept == nullptr) return;
    std::fill(kept, kept + place.key_begin, -std::numeric_limits<float>::infinity());
    std::fill(kept + place.key_end, kept + key_length, -std::numeric_limits<float>::infinity());
  }
}

}  // namespace

RowGroup::RowGroup(const SdpaRun& run, const RowRange& range, Workspace& workspace, float* weights)
    : run_(run),
      range_(range),
      kernels_(KernelsForRows(run.kernels, range.count)),
      workspace_(workspace),
      task_(MakeTask(run.problem, range.kv)),
      wide_(run.problem, run.outputs, run.kernels.convert, range) {
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
    PanelPlace& place = workspace.panels[static_cast<std::size_t>(i)];
    const std::int64_t count = cut.First(i + 1) - cut.First(i);
    place = PanelPlace{{.task = &task_, .rows = rows + cut.First(i), .num_rows = count}};
    place.packed_offset = packed_size;
    place.state_offset = state_size_;
    packed_size += PadToCacheLine(kernels_.packed_size(task_, count));
    state_size_ += PadToCacheLine(kernels_.state_size(task_, count));
    scratch_size = std::max(scratch_size, PadToCacheLine(kernels_.scratch_size(task_, count)));
    FindKeys(place);
  }
  totals_ = workspace.Floats(packed_size + 2 * state_size_ + scratch_size + wide_.size());
  chunks_ = totals_ + state_size_;
  float* scratch = chunks_ + state_size_;
  wide_.Place(scratch + scratch_size + packed_size, rows);
  for (PanelPlace& place : workspace.panels) {
    place.panel.scratch = scratch;
    place.panel.packed = scratch + scratch_size + place.packed_offset;
    place.queries = kernels_.pack(place.panel);
  }
}

void RowGroup::Reset(float* states) {
  for (const PanelPlace& place : workspace_.panels) kernels_.reset(place.panel, states + place.state_offset);
}

void RowGroup::Merge(const float* states) {
  for (const PanelPlace& place : workspace_.panels) {
    kernels_.merge(place.panel, states + place.state_offset, totals_ + place.state_offset);
  }
}

// The largest magnitude among `keys`, which are those of the turn that begins with key `turn`.
float RowGroup::LargestKey(std::int64_t turn, const KeyRange& keys) {
  const auto i = static_cast<std::size_t>(turn / kKeysPerTurn);
  if (workspace_.key_bounds.size() <= i) workspace_.key_bounds.resize(i + 1);
  KeyBound& bound = workspace_.key_bounds[i];
  const bool known = bound.kv.batch == range_.kv.batch && bound.kv.head == range_.kv.head &&
                     bound.keys.begin == keys.begin && bound.keys.end == keys.end;
  if (!known) bound = {range_.kv, keys, kernels_.largest_key(task_, keys.begin, keys.end)};
  return bound.largest;
}

// With `first_into_total`, a panel's first chunk goes straight into its empty total: merging would not change a bit.
bool RowGroup::AddChunk(std::int64_t chunk, bool first_into_total) {
  const std::int64_t chunk_end = std::min((chunk + 1) * kKeyChunk, task_.key_length);
  for (std::int64_t turn = chunk * kKeyChunk; turn < chunk_end; turn += kKeysPerTurn) {
    const KeyRange keys = KeysOfTurn(workspace_.panels, turn, std::min(turn + kKeysPerTurn, chunk_end));
    if (keys.begin >= keys.end) continue;
    wide_.WidenKeys(keys.begin, keys.end, task_);
    const double largest_key = kernels_.largest_key != nullptr ? LargestKey(turn, keys) : kInfinity;
    for (PanelPlace& place : workspace_.panels) {
      const std::int64_t begin = std::max(keys.begin, place.key_begin);
      const std::int64_t end = std::min(keys.end, place.key_end);
      if (begin >= end) continue;
      if (run_.Cancelled()) return false;
      // False for NaN.
      const bool in_range = static_cast<double>(task_.head_dim) * place.queries.largest * largest_key < kSurelyInRange;
      place.panel.may_overflow = !in_range;
      const bool into_total = first_into_total && chunk == place.key_begin / kKeyChunk;
      kernels_.accumulate(place.panel, begin, end, (into_total ? totals_ : chunks_) + place.state_offset);
    }
  }
  return true;
}

bool RowGroup::AddKeys() {
  std::int64_t begin = task_.key_length;
  std::int64_t end = 0;
  for (const PanelPlace& place : workspace_.panels) {
    begin = std::min(begin, place.key_begin);
    end = std::max(end, place.key_end);
  }
  Reset(totals_);
  for (std::int64_t chunk = begin / kKeyChunk; chunk * kKeyChunk < end; ++chunk) {
    const auto merges = [chunk](const PanelPlace& place) {
      return chunk > place.key_begin / kKeyChunk && chunk * kKeyChunk < place.key_end;
    };
    for (const PanelPlace& place : workspace_.panels) {
      if (merges(place)) kernels_.reset(place.panel, chunks_ + place.state_offset);
    }
    if (!AddChunk(chunk, true)) return false;
    for (const PanelPlace& place : workspace_.panels) {
      if (merges(place)) {
        kernels_.merge(place.panel, chunks_ + place.state_offset, totals_ + place.state_offset);
      }
    }
  }
  return true;
}

void RowGroup::Finish() {
  for (PanelPlace& place : workspace_.panels) {
    KeepMaskedEnds(place, task_.key_length);
    place.doubtful = kernels_.finish(place.panel, totals_ + place.state_offset);
  }
}

bool RowGroup::Repeat() {
  task_.select_values = true;
  if (!AddKeys()) return false;
  Finish();
  return true;
}

// Multiplying by a weight of zero does not mask a value that is NaN or infinite. That is so rare that it is noticed
// afterwards, and then done again by selecting.
bool RowGroup::FinishOrRepeat() {
  Finish();
  std::uint64_t not_finite = 0;
  for (const PanelPlace& place : workspace_.panels) not_finite |= place.doubtful.not_finite;
  if (not_finite != 0 && !Repeat()) return false;
  CompleteScores();
  if (FindDoubtfulRows() != 0 && !ComputeDoubtfulRows()) return false;
  wide_.NarrowOutputs(workspace_.rows.data());
  return true;
}

RowPlace RowGroup::PlaceOf(const PanelPlace& place, std::int64_t r) const {
  return PlaceOfRow(run_.problem, range_.kv, range_.first + (place.panel.rows - workspace_.rows.data()) + r);
}

// Returns 0 if there are none.
std::uint64_t RowGroup::FindDoubtfulRows() {
  std::uint64_t any = 0;
  bool leaves_range = LeavesFloatRange(run_.problem, task_, 0);
  for (PanelPlace& place : workspace_.panels) {
    place.leaves_range = place.below_range = 0;
    for (std::int64_t r = 0; r < place.panel.num_rows; ++r) {
      if (task_.has_alibi) leaves_range = LeavesFloatRange(run_.problem, task_, PlaceOf(place, r).head);
      place.leaves_range |= std::uint64_t{leaves_range} << r;
      if (!place.queries.below_range) continue;
      place.below_range |= std::uint64_t{ScalesBelowFloatRange(task_, place.panel.rows[r].query)} << r;
    }
    any |= place.doubtful.not_finite | place.doubtful.nan_sum | place.doubtful.no_keys | place.leaves_range |
           place.below_range;
  }
  return any;
}

// Indices of rows whose inputs are finite and whose float32 results are not what the inputs say. `repeat` becomes true
// when a row whose inputs are not finite may be NaN only because an overflow was noticed.
std::vector<std::int64_t> RowGroup::RowsToComputeAgain(ExactRows& exact, bool& repeat) const {
  std::vector<std::int64_t> rows;
  for (const PanelPlace& place : workspace_.panels) {
    const DoubtfulRows& doubtful = place.doubtful;
    const std::uint64_t surely = doubtful.not_finite | doubtful.nan_sum | doubtful.no_keys | place.leaves_range;
    for (std::int64_t r = 0; r < place.panel.num_rows; ++r) {
      if (((surely | place.below_range) >> r & 1) == 0) continue;
      const RowPlace at = PlaceOf(place, r);
      const bool nan_sum = (doubtful.nan_sum >> r & 1) != 0;
      const ExactRows::Inputs inputs = exact.Inspect(at, nan_sum);
      const bool again = inputs == ExactRows::Inputs::kFinite   ? (surely >> r & 1) != 0 || exact.ShowsLostNumbers()
                         : inputs == ExactRows::Inputs::kNoKeys ? nan_sum || exact.LosesSink(at, place.panel.rows[r])
                                                                : false;
      if (again) rows.push_back(place.panel.rows - workspace_.rows.data() + r);
      repeat = repeat || (nan_sum && inputs == ExactRows::Inputs::kNotFinite);
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
    CompleteScores();
  }
  for (const std::int64_t i : rows) {
    const RowPlace place = PlaceOfRow(run_.problem, range_.kv, range_.first + i);
    if (!exact.Compute(place, workspace_.rows[static_cast<std::size_t>(i)])) return false;
  }
  return true;
}

void RowGroup::CompleteScores() {
  if (!run_.outputs.scores || !(task_.has_bias || task_.has_alibi)) return;
  ExactRows exact(run_, range_.kv);
  for (const PanelPlace& place : workspace_.panels) {
    for (std::int64_t r = 0; r < place.panel.num_rows; ++r)
      exact.CompleteScores(PlaceOf(place, r), place.panel.rows[r]);
  }
}

bool RowGroup::Compute() { return AddKeys() && FinishOrRepeat(); }

bool RowGroup::ComputeChunk(std::int64_t chunk, float* states) {
  chunks_ = states;
  Reset(states);
  return AddChunk(chunk, false);
}

bool RowGroup::MergeAndFinish(std::int64_t num_chunks, const float* states) {
  Reset(totals_);
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) Merge(states + chunk * state_size_);
  return FinishOrRepeat();
}

}  // namespace attend
