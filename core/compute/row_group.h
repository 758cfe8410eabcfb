// Computes a range of query rows of one key/value head, on the calling thread.
#ifndef ATTEND_CORE_COMPUTE_ROW_GROUP_H_
#define ATTEND_CORE_COMPUTE_ROW_GROUP_H_

#include <cstdint>
#include <vector>

#include "core/compute/context.h"
#include "core/compute/row_panels.h"
#include "core/compute/widened_rows.h"
#include "core/compute/workspace.h"

namespace attend {

class ExactRows;

// What all parts of one computation share. Non-owning; all of it outlives the computation.
struct SdpaRun {
  const SdpaProblem& problem;
  const SdpaOutputs& outputs;
  const ComputeContext& context;
  const KernelTable& kernels;

  bool Cancelled() const { return IsCancelled(context); }
};

// Rows cut into panels, with their memory in a workspace and their queries packed. Keys are added in ascending chunks.
// Within a chunk all panels use one tile of keys before the next, so that the tile is read from memory once.
//
// Thread-compatible. One group at a time may live in a workspace.
class RowGroup {
 public:
  // `weights`, if not null, receives the attention weights of row first + i at weights + i * key_length instead of
  // where the run's outputs say.
  RowGroup(const SdpaRun& run, const RowRange& range, Workspace& workspace, float* weights = nullptr);

  // Everything: all keys, then the outputs. Returns false if cancelled.
  bool Compute();

  // Or step by step, so that chunks may be computed side by side by several groups of the same rows.
  std::int64_t state_size() const { return state_size_; }  // Floats that hold the states of all panels.
  // Makes `states` those of chunk number `chunk` alone. Returns false if cancelled.
  bool ComputeChunk(std::int64_t chunk, float* states);
  // The same piece by piece: starts with empty `states`, and adds keys [begin, end) of a chunk, in ascending order,
  // begin and end multiples of kKeyBlock or the last key. `next` is the group whose keys are read afterwards.
  void StartChunk(float* states);
  bool AddToChunk(std::int64_t begin, std::int64_t end, const RowGroup& next);
  // Merges the states of chunks [0, num_chunks), one after the other in memory, and writes the outputs. Returns false
  // if cancelled.
  bool MergeAndFinish(std::int64_t num_chunks, const float* states);

 private:
  void Reset(float* states);
  void Merge(const float* states);
  bool AddKeys();
  float LargestKey(std::int64_t tile, const KeyRange& keys);
  bool AddChunk(std::int64_t chunk, bool first_into_total);
  bool AddTile(std::int64_t tile, std::int64_t tile_end, bool first_into_total);
  bool FinishOrRepeat();
  void Finish();
  bool Repeat();
  bool LeavesRange(std::int64_t head) const;
  std::uint64_t FindDoubtfulRows();
  RowCoordinates CoordinatesOf(const GroupPanel& panel, std::int64_t r) const;
  bool FailsInFloat32(const GroupPanel& panel, std::int64_t r, ExactRows& exact) const;
  std::vector<std::int64_t> RowsToComputeAgain(ExactRows& exact, bool& repeat) const;
  bool ComputeDoubtfulRows();
  bool HasScoresToComplete() const;
  void CompleteScores(ExactRows& exact) const;

  const SdpaRun& run_;
  const RowRange range_;
  const RowKernels& kernels_;
  Workspace& workspace_;
  AttentionTask task_;
  WidenedRows widened_;
  std::int64_t state_size_ = 0;
  float* totals_ = nullptr;
  float* chunks_ = nullptr;
};

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_ROW_GROUP_H_
