// Rows of problems in FLOAT32 whose finite inputs make arithmetic leave float32's range, computed again in float64, one
// at a time, and rounded once: large scores, biases, scales, softcaps, sinks, slopes and values.
//
// In float64 nothing that finite float32 numbers make can overflow, and NaN and infinity mean there what they mean in
// float32. Which rows are computed so is a function of what the row sees and of nothing else, so it is the same on
// every machine, in every batch and for any number of threads.
//
// Thread-compatible.
#ifndef ATTEND_CORE_COMPUTE_EXACT_ROWS_H_
#define ATTEND_CORE_COMPUTE_EXACT_ROWS_H_

#include <cstdint>

#include "core/compute/row_group.h"
#include "core/compute/row_panels.h"
#include "core/kernels/double_kernels.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {

// Doubles that one ExactRows allocates; and floats, if a tensor is not FLOAT32.
std::int64_t ExactRowsDoubles(std::int64_t key_length, std::int64_t head_dim, std::int64_t value_dim);
std::int64_t ExactRowsFloats(std::int64_t head_dim, std::int64_t value_dim);

// Whether float32 cannot compute the rows of query head h: its scale, softcap or slope is so large or so small that
// float32 loses it, and no result shows that.
bool LeavesFloatRange(const SdpaProblem& problem, const AttentionTask& task, std::int64_t h);

// Whether numbers of a scaled query [head_dim] are lost below float32's range, which matters for very large keys only.
bool ScalesBelowFloatRange(const AttentionTask& task, const float* query);

class ExactRows {
 public:
  // Both outlive the object.
  ExactRows(const SdpaRun& run, KvHead kv);

  // kNan: there are keys, and the query holds NaN, as then do all scores, however they are computed.
  enum class Inputs { kNoKeys, kFinite, kNotFinite, kNan };
  // What the row sees: the query, the keys that are visible and that no bias of -infinity masks, and if there are any
  // their values and biases, the slope and the sink (-infinity is none). With `behind_bias` also the keys that a bias
  // masks, which may make a score NaN. REQUIRES: nothing was computed or completed before.
  Inputs Inspect(const RowCoordinates& at, bool behind_bias);
  // Whether the keys of the last Inspect are so large that numbers lost below float32's range matter.
  bool ShowsLostNumbers() const;
  // Of a last Inspect that found something not finite: whether float32 may fail at what else it found, so that what is
  // not finite in the row's results may be so for no reason that the inputs give.
  bool MayLeaveFloatRange(const AttentionTask& task) const;

  // Whether the row's sink is finite, but infinite in the units of `row`.
  bool LosesSink(const RowCoordinates& at, const QueryRow& row) const;

  // Writes all outputs of the row to `to`. Returns false if cancelled.
  bool Compute(const RowCoordinates& at, const QueryRow& to);

  // Scores that bias or ALiBi moved below float32's range in units of log2, and that are -infinity for that reason
  // alone, are replaced by their values. REQUIRES: to.scores is written.
  void CompleteScores(const RowCoordinates& at, const QueryRow& to);

 private:
  struct Magnitudes {
    void Add(const float* numbers, std::int64_t size);
    void Add(double number);
    void Add(const Magnitudes& other);
    bool finite = true;
    bool nan = false;  // Known of queries alone.
    double largest_finite = 0;
  };

  Magnitudes MagnitudesOf(const InputRows& rows, std::int64_t j, float& known);
  bool InspectKeys(const RowCoordinates& at, bool behind_bias);
  const float* Floats(const InputRows& rows, std::int64_t head, std::int64_t j);
  bool Sees(const RowCoordinates& at, std::int64_t j) const;
  float Bias(const RowCoordinates& at, std::int64_t j) const;
  DoubleRow MakeRow(const RowCoordinates& at);
  void RefuseScoresBelowRange(const RowCoordinates& at, const DoubleRow& row, DoubleSoftmax& softmax);
  void WidenKey(std::int64_t j);
  void WidenValue(std::int64_t j);

  const SdpaRun& run_;
  const SdpaProblem& problem_;
  const KvHead kv_;
  const DoubleKernels& kernels_;
  DoubleTask task_;
  AlignedBuffer<double> memory_;
  AlignedBuffer<float> narrow_;  // A row of narrow numbers as floats.
  double* query_;
  double* key_;
  double* value_;
  double* output_;
  double* exponentials_;
  float* largest_;  // Of each key and its value, known since a row was inspected that sees it; where exponentials_ are.
  // By the last Inspect; logits are biases and the sink.
  Magnitudes query_seen_, keys_seen_, values_seen_, logits_seen_;
};

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_EXACT_ROWS_H_
