// Float copies of the parts of narrow tensors, those of 16 and of 8 bits, that a row group reads and writes.
//
// Queries are widened once; keys and values a tile at a time, just before the group's panels read them, so that they
// stay in the second-level cache, or by the kernels in registers, for which values may be packed as pairs instead;
// outputs are narrowed at the end. Widening is exact, and of INT8 rounds as SdpaProblem says, so the bits are those of
// the same problem given in FLOAT32, and each output is rounded once.
//
// Thread-compatible.
#ifndef ATTEND_CORE_COMPUTE_WIDENED_ROWS_H_
#define ATTEND_CORE_COMPUTE_WIDENED_ROWS_H_

#include <cstdint>

#include "core/compute/row_panels.h"
#include "core/kernels/kernel_table.h"
#include "core/problem/sdpa_problem.h"

namespace attend {

// One of a problem's inputs, which outlives it, and what its numbers are multiplied with if they are INT8.
struct InputRows {
  const TypedHeadsView& tensor;
  const HeadsView* scales;  // Read for INT8 alone.

  // Row j of a batch entry and head (of the tensor's) as floats, to `to` [tensor.dim].
  void Widen(const ConvertKernels& convert, KvHead head, std::int64_t j, float* to) const;
};
inline InputRows QueriesOf(const SdpaProblem& problem) { return {problem.query(), nullptr}; }
inline InputRows KeysOf(const SdpaProblem& problem) { return {problem.key(), &problem.key_scales()}; }
inline InputRows ValuesOf(const SdpaProblem& problem) { return {problem.value(), &problem.value_scales()}; }

// Rows [first, first + count) of one key/value head, numbered as in row_panels.h.
struct RowRange {
  KvHead kv;
  std::int64_t first = 0;
  std::int64_t count = 0;
};

// Keys that every panel of a group uses before the next are read: small enough that they stay in the second-level cache
// (at 128 dimensions, 256 keys and values are 256 KiB).
inline constexpr std::int64_t kKeysPerTile = 256;

class WidenedRows {
 public:
  // All arguments outlive the object. `kernels` say whether keys and values are copied.
  WidenedRows(const SdpaProblem& problem, const SdpaOutputs& outputs, const ConvertKernels& convert,
              const RowKernels& kernels, const RowRange& range);

  // The floats that the copies take: 0 when everything is FLOAT32.
  std::int64_t size() const;

  // Puts the copies into `memory` [size()], and makes `rows`, those of the range, read and write them.
  void UseMemory(float* memory, QueryRow* rows);

  // Makes `task` read keys [begin, end), at most kKeysPerTile of them; begin is even.
  void WidenKeys(std::int64_t begin, std::int64_t end, AttentionTask& task) const;

  // Writes the outputs to where they belong.
  void NarrowOutputs(const QueryRow* rows) const;

 private:
  // Where the rows of one tensor are copied to.
  struct Copy {
    bool needed = false;
    std::int64_t stride = 0;  // Floats from row to row: rows start on a cache line.
    std::int64_t num_rows = 0;
    float* memory = nullptr;

    std::int64_t size() const { return needed ? stride * num_rows : 0; }
    float* Row(std::int64_t i) const { return memory + i * stride; }
  };

  static Copy MakeCopy(bool needed, std::int64_t dim, std::int64_t num_rows);
  void WidenRows(const InputRows& rows, std::int64_t begin, std::int64_t end, const Copy& copy) const;

  const SdpaProblem& problem_;
  const SdpaOutputs& outputs_;
  const ConvertKernels& convert_;
  const RowRange range_;
  void (*const pack_values_)(const AttentionTask&, std::int64_t, std::int64_t, std::uint32_t*, std::int64_t);
  Copy queries_, keys_, values_, value_pairs_, results_;
};

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_WIDENED_ROWS_H_
